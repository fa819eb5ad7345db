// Dropout, residual and layer norm in one pass over each row, forward and backward:
//
//     s = keep * y * drop + residual,   out = (s - mean) * rstd * weight + bias
//
// y is fp32 or bf16, all else fp32; a bf16 twin of out, for the products that read it, has a
// gradient of its own.

#include <cmath>

#include "kernels.h"

namespace {

struct Norm {
  int64_t rows, columns;
  const float *weight, *bias;
  float eps;
  Draw draw;
};

template <typename F>
inline void over_columns(int64_t columns, F f) {
  for (int64_t j = 0; j < columns; j += W) f(j, std::min(W, columns - j));
}

inline VF cut(VF v, int64_t n) { return n == W ? v : VF::set(VF(0.0f), v, n); }

template <typename T>
void add_norm(const Norm& norm, const T* y, const float* residual, float* s, float* out, BF16* twin,
              float* stats) {
  const int64_t columns = norm.columns;
  over_rows(norm.rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * columns;
      const VF scale(norm.draw.scale);
      VF total(0.0f);
      over_row(norm.draw, r, columns, [&](int64_t j, int64_t n, VI keep) {
        const VF sum_ = only(load(y + at + j, n), keep) * scale + load(residual + at + j, n);
        save(s + at + j, sum_, n);
        total = total + cut(sum_, n);
      });
      const float mean = sum(total) / static_cast<float>(columns);
      VF squares(0.0f);
      over_columns(columns, [&](int64_t j, int64_t n) {
        const VF d = cut(load(s + at + j, n) - VF(mean), n);
        squares = squares + d * d;
      });
      const float rstd = 1.0f / std::sqrt(sum(squares) / static_cast<float>(columns) + norm.eps);
      over_columns(columns, [&](int64_t j, int64_t n) {
        const VF x = (load(s + at + j, n) - VF(mean)) * VF(rstd);
        const VF y_ = x * load(norm.weight + j, n) + load(norm.bias + j, n);
        save(out + at + j, y_, n);
        if (twin) save(twin + at + j, y_, n);
      });
      stats[2 * r] = mean;
      stats[2 * r + 1] = rstd;
    }
  });
}

constexpr int64_t GROUP = 64;  // rows whose share of the weights' gradients is one partial sum

template <typename T>
void add_norm_backward(const Norm& norm, const float* grad, const BF16* twin, float* s,
                       const float* stats, T* dy, float* partial) {
  const int64_t columns = norm.columns;
  const float share = 1.0f / static_cast<float>(columns);
  at::parallel_for(0, (norm.rows + GROUP - 1) / GROUP, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin * GROUP; r < std::min(norm.rows, end * GROUP); ++r) {
      const int64_t at = r * columns;
      const VF mean(stats[2 * r]), rstd(stats[2 * r + 1]), scale(norm.draw.scale);
      const auto normed = [&](int64_t j, int64_t n) { return (load(s + at + j, n) - mean) * rstd; };
      const auto given = [&](int64_t j, int64_t n) {
        const VF g = load(grad + at + j, n);
        return twin ? g + load(twin + at + j, n) : g;
      };
      const auto weighted = [&](int64_t j, int64_t n) {
        return given(j, n) * load(norm.weight + j, n);
      };
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
      const VF level(sum(total) * share), slope(sum(along) * share);
      over_row(norm.draw, r, columns, [&](int64_t j, int64_t n, VI keep) {
        const VF ds = rstd * (weighted(j, n) - level - normed(j, n) * slope);
        save(s + at + j, ds, n);
        save(dy + at + j, only(ds, keep) * scale, n);
      });
    }
  });
}

}  // namespace

extern "C" {

int64_t openloop_norm_group() { return GROUP; }

// stats (rows, 2): mean and rstd. s may be out where nobody needs it for the backward pass; twin
// may be null.
#define OPENLOOP_ADD_NORM(NAME, T)                                                             \
  void openloop_add_norm_##NAME(const Norm* norm, const T* y, const float* residual, float* s, \
                                float* out, BF16* twin, float* stats) {                        \
    add_norm(*norm, y, residual, s, out, twin, stats);                                         \
  }
OPENLOOP_ADD_NORM(fp32, float)
OPENLOOP_ADD_NORM(bf16, BF16)

// The gradient of the residual in the place of s, and that of y, from those of out and (null, or)
// of its twin. partial: null, or zeros (groups of GROUP rows, 2, columns) to which the gradients of
// weight and bias are added.
#define OPENLOOP_ADD_NORM_BACKWARD(NAME, T)                                                     \
  void openloop_add_norm_backward_##NAME(const Norm* norm, const float* grad, const BF16* twin, \
                                         float* s, const float* stats, T* dy, float* partial) { \
    add_norm_backward(*norm, grad, twin, s, stats, dy, partial);                                \
  }
OPENLOOP_ADD_NORM_BACKWARD(fp32, float)
OPENLOOP_ADD_NORM_BACKWARD(bf16, BF16)

}  // extern "C"
