// Dropout, residual and norm in one pass over each row, forward and backward:
//
//     s = keep * y * drop + residual,   out = (s - mean) * rstd * (weight + shift) + bias
//
// y is fp32 or bf16, all else fp32; a bf16 twin of out, for the products that read it, has a
// gradient of its own. So has s, where a layer adds to it later (the norm stands before the layer).
// An RMS norm (Zhang and Sennrich 2019, arXiv:1910.07467) has mean 0 and no bias.

#include <cmath>

#include "kernels.h"

namespace {

struct Norm {
  int64_t rows, columns;
  const float *weight, *bias;  // no bias: null
  int64_t rms;
  float eps, shift;
  Draw draw;
};

template <typename F>
inline void over_columns(int64_t columns, F f) {
  for (int64_t j = 0; j < columns; j += W) f(j, std::min(W, columns - j));
}

inline VF cut(VF v, int64_t n) { return n == W ? v : VF::set(VF(0.0f), v, n); }

inline VF gain(const Norm& norm, int64_t j, int64_t n) {
  return load(norm.weight + j, n) + VF(norm.shift);
}

// s of a row, where there is a y; returns the sum of it, or of its squares
template <typename T>
float add_row(const Norm& norm, int64_t r, const T* y, const float* residual, float* s) {
  const int64_t at = r * norm.columns;
  const VF scale(norm.draw.scale);
  VF total(0.0f);
  const auto count = [&](VF v, int64_t n) {
    v = cut(v, n);
    total = total + (norm.rms ? v * v : v);
  };
  if (y) {
    over_row(norm.draw, r, norm.columns, [&](int64_t j, int64_t n, VI keep) {
      const VF sum_ = only(load(y + at + j, n), keep) * scale + load(residual + at + j, n);
      save(s + at + j, sum_, n);
      count(sum_, n);
    });
  } else {
    over_columns(norm.columns, [&](int64_t j, int64_t n) { count(load(s + at + j, n), n); });
  }
  return sum(total);
}

template <typename T>
void add_norm(const Norm& norm, const T* y, const float* residual, float* s, float* out, BF16* twin,
              float* stats) {
  const int64_t columns = norm.columns;
  const float share = 1.0f / static_cast<float>(columns);
  over_rows(norm.rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * columns;
      float level = add_row(norm, r, y, residual, s) * share, mean = 0.0f;
      if (!norm.rms) {
        mean = level;
        VF squares(0.0f);
        over_columns(columns, [&](int64_t j, int64_t n) {
          const VF d = cut(load(s + at + j, n) - VF(mean), n);
          squares = squares + d * d;
        });
        level = sum(squares) * share;
      }
      const float rstd = 1.0f / std::sqrt(level + norm.eps);
      over_columns(columns, [&](int64_t j, int64_t n) {
        VF v = (load(s + at + j, n) - VF(mean)) * VF(rstd) * gain(norm, j, n);
        if (norm.bias) v = v + load(norm.bias + j, n);
        if (out) save(out + at + j, v, n);
        if (twin) save(twin + at + j, v, n);
      });
      stats[2 * r] = mean;
      stats[2 * r + 1] = rstd;
    }
  });
}

constexpr int64_t GROUP = 64;  // rows whose share of the weights' gradients is one partial sum

template <typename T>
void add_norm_backward(const Norm& norm, const float* grad, const BF16* twin, const float* grad_s,
                       float* s, const float* stats, T* dy, float* partial) {
  const int64_t columns = norm.columns;
  const float share = 1.0f / static_cast<float>(columns);
  at::parallel_for(0, (norm.rows + GROUP - 1) / GROUP, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin * GROUP; r < std::min(norm.rows, end * GROUP); ++r) {
      const int64_t at = r * columns;
      const VF mean(stats[2 * r]), rstd(stats[2 * r + 1]), scale(norm.draw.scale);
      const auto normed = [&](int64_t j, int64_t n) { return (load(s + at + j, n) - mean) * rstd; };
      const auto given = [&](int64_t j, int64_t n) {
        const VF g = grad ? load(grad + at + j, n) : VF(0.0f);
        return twin ? g + load(twin + at + j, n) : g;
      };
      const auto weighted = [&](int64_t j, int64_t n) { return given(j, n) * gain(norm, j, n); };
      VF total(0.0f), along(0.0f);
      over_columns(columns, [&](int64_t j, int64_t n) {
        const VF g = cut(weighted(j, n), n);
        total = total + g;
        along = along + g * normed(j, n);
      });
      if (partial) {
        float* dweight = partial + r / GROUP * 2 * columns;
        over_columns(columns, [&](int64_t j, int64_t n) {
          const VF g = given(j, n);
          save(dweight + j, load(dweight + j, n) + g * normed(j, n), n);
          save(dweight + columns + j, load(dweight + columns + j, n) + g, n);
        });
      }
      const VF level(norm.rms ? 0.0f : sum(total) * share), slope(sum(along) * share);
      const auto through = [&](int64_t j, int64_t n) {
        const VF ds = rstd * (weighted(j, n) - level - normed(j, n) * slope);
        return grad_s ? ds + load(grad_s + at + j, n) : ds;
      };
      if (!dy) {
        over_columns(columns, [&](int64_t j, int64_t n) { save(s + at + j, through(j, n), n); });
        continue;
      }
      over_row(norm.draw, r, columns, [&](int64_t j, int64_t n, VI keep) {
        const VF ds = through(j, n);
        save(s + at + j, ds, n);
        save(dy + at + j, only(ds, keep) * scale, n);
      });
    }
  });
}

}  // namespace

extern "C" {

int64_t openloop_norm_group() { return GROUP; }

// stats (rows, 2): mean and rstd. s may be out where nobody needs it for the backward pass; out or
// twin may be null. Without a y (null) s is what it is.
#define OPENLOOP_ADD_NORM(NAME, T)                                                             \
  void openloop_add_norm_##NAME(const Norm* norm, const T* y, const float* residual, float* s, \
                                float* out, BF16* twin, float* stats) {                        \
    add_norm(*norm, y, residual, s, out, twin, stats);                                         \
  }
OPENLOOP_ADD_NORM(fp32, float)
OPENLOOP_ADD_NORM(bf16, BF16)

// The gradient of the residual in the place of s, and that of y (null: it is the same), from those
// of out, of its twin and of s, each of which may be null. partial: null, or zeros (groups of GROUP
// rows, 2, columns) to which the gradients of weight and bias are added.
#define OPENLOOP_ADD_NORM_BACKWARD(NAME, T)                                                        \
  void openloop_add_norm_backward_##NAME(const Norm* norm, const float* grad, const BF16* twin,    \
                                         const float* grad_s, float* s, const float* stats, T* dy, \
                                         float* partial) {                                         \
    add_norm_backward(*norm, grad, twin, grad_s, s, stats, dy, partial);                           \
  }
OPENLOOP_ADD_NORM_BACKWARD(fp32, float)
OPENLOOP_ADD_NORM_BACKWARD(bf16, BF16)

}  // extern "C"
