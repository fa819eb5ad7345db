// Element-wise kernels over rows for the CPU. Called through ctypes (native.py); the plain forms
// are in kernels.py.

#include "kernels.h"

#include <atomic>

namespace {

template <typename T>
void drop(const T* x, T* y, int64_t rows, int64_t columns, const Draw& draw) {
  const VF scale(draw.scale);
  over_rows(rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* from = x + r * columns;
      T* to = y + r * columns;
      over_row(draw, r, columns, [&](int64_t j, int64_t n, VI keep) {
        save(to + j, only(load(from + j, n), keep) * scale, n);
      });
    }
  });
}

struct Normal {  // of a standard normal x: the probability of less than x, and the density
  VF probability, density;
};

// Upper tail from Abramowitz and Stegun 7.1.26, to 1e-7; both sides share one exponential.
inline Normal normal(VF x) {
  const VF z = x.abs() * VF(0.70710678f), one(1.0f);
  const VF t = one / (one + VF(0.3275911f) * z), e = exp_below_0(VF(0.0f) - z * z);
  VF tail = t * VF(1.061405429f) - VF(1.453152027f);
  tail = t * tail + VF(1.421413741f);
  tail = t * tail - VF(0.284496736f);
  tail = t * tail + VF(0.254829592f);
  tail = tail * t * e * VF(0.5f);
  return {VF::blendv(one - tail, tail, x < VF(0.0f)), e * VF(0.39894228f)};
}

template <typename T, typename F>  // to[i, i + count) = f(i, count)
void over_numbers(T* to, int64_t n, F f) {
  at::parallel_for(0, (n + 4095) / 4096, 8, [&](int64_t begin, int64_t end) {
    int64_t i = begin * 4096;
    const int64_t stop = std::min(n, end * 4096);
    for (; i + BLOCK <= stop; i += BLOCK)
      for (int64_t l = i; l < i + 16; l += W) save_pair(to + l, f(l, W), f(l + 16, W));
    for (; i < stop; i += W) save(to + i, f(i, std::min(W, stop - i)), std::min(W, stop - i));
  });
}

template <typename T>
void gelu_backward(const T* grad, T* x, int64_t n) {
  over_numbers(x, n, [&](int64_t i, int64_t count) {
    const VF v = load(x + i, count);
    const Normal at = normal(v);
    return load(grad + i, count) * (at.probability + v * at.density);
  });
}

}  // namespace

extern "C" {

// The backward pass of gelu(x) = x * P(normal < x) (Hendrycks and Gimpel 2016, arXiv:1606.08415):
// overwrites x with its gradient.
void openloop_gelu_backward_fp32(const float* grad, float* x, int64_t n) {
  gelu_backward(grad, x, n);
}
void openloop_gelu_backward_bf16(const BF16* grad, BF16* x, int64_t n) {
  gelu_backward(grad, x, n);
}

int64_t openloop_vector_width() { return W; }

int64_t openloop_threads() {  // how many threads a loop over many rows really gets
  std::atomic<int64_t> seen{0};
  at::parallel_for(0, 4096, 1, [&](int64_t, int64_t) { seen += 1; });
  return seen;
}

void openloop_drop_fp32(const float* x, float* y, int64_t rows, int64_t columns, const Draw* draw) {
  drop(x, y, rows, columns, *draw);
}

void openloop_drop_bf16(const BF16* x, BF16* y, int64_t rows, int64_t columns, const Draw* draw) {
  drop(x, y, rows, columns, *draw);
}

}  // extern "C"
