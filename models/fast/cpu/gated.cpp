// Activations with a gate, and rotary positions: passes over memory, each done once.
//
//     out = act(x) * up,   act(x) = x * s(t(x)),   s the logistic function
//
// with t(x) = x for SiLU (Elfwing et al. 2017, arXiv:1702.03118), and for GELU's tanh form
// t(x) = sqrt(8 / pi) * (x + 0.044715 x^3), since (1 + tanh(z)) / 2 = s(2 z).

#include "kernels.h"

namespace {

constexpr float SLOPE = 1.5957691216f, CUBE = 0.044715f;

struct Gate {
  VF value, slope;  // act(x) and its derivative
};

inline Gate gate(VF x, bool tanh_gelu) {
  const VF one(1.0f), square = x * x;
  const VF t = tanh_gelu ? x * (one + VF(CUBE) * square) * VF(SLOPE) : x;
  const VF along = tanh_gelu ? (one + VF(3.0f * CUBE) * square) * VF(SLOPE) : one;
  const VF e = exp_below_0(VF(0.0f) - t.abs());
  const VF far = one / (one + e);  // s(|t|)
  const VF s = VF::blendv(far, e * far, t < VF(0.0f)), rest = VF::blendv(e * far, far, t < VF(0.0f));
  const VF value = x * s;
  return {value, s + value * rest * along};
}

template <typename F>  // f(first element, count) over n of them
void over_vectors(int64_t n, F f) {
  at::parallel_for(0, round_up(n, W) / W, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * W; i < std::min(n, end * W); i += W) f(i, std::min(W, n - i));
  });
}

template <typename T>
void gated(const T* x, const T* up, T* out, int64_t n, bool tanh_gelu) {
  over_vectors(n, [&](int64_t i, int64_t count) {
    const VF value = gate(load(x + i, count), tanh_gelu).value;
    save(out + i, up ? value * load(up + i, count) : value, count);
  });
}

template <typename T>
void gated_backward(T* grad, T* x, T* up, int64_t n, bool tanh_gelu) {
  over_vectors(n, [&](int64_t i, int64_t count) {
    const VF g = load(grad + i, count);
    const Gate at = gate(load(x + i, count), tanh_gelu);
    if (!up) {
      save(grad + i, at.value, count);
      save(x + i, g * at.slope, count);
      return;
    }
    const VF u = load(up + i, count);
    save(grad + i, at.value * u, count);
    save(x + i, g * u * at.slope, count);
    save(up + i, g * at.value, count);
  });
}

// x (tokens, heads, size), in place, by cos and sin (tokens, size): each pair of elements half a
// head apart is turned; `back`: by the transpose, as a gradient is.
template <typename T>
void rotate(T* x, int64_t stride, const float* cosines, const float* sines, int64_t tokens,
            int64_t heads, int64_t size, bool back) {
  const int64_t half = size / 2;
  over_rows(tokens, heads * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *c = cosines + r * size, *s = sines + r * size;
      for (int64_t h = 0; h < heads; ++h) {
        T *first = x + r * stride + h * size, *second = first + half;
        for (int64_t j = 0; j < half; j += W) {
          const int64_t n = std::min(W, half - j);
          const VF a = load(first + j, n), b = load(second + j, n);
          const VF c1 = load(c + j, n), s1 = load(s + j, n);
          const VF c2 = load(c + half + j, n), s2 = load(s + half + j, n);
          save(first + j, back ? a * c1 + b * s2 : a * c1 - b * s1, n);
          save(second + j, back ? b * c2 - a * s1 : b * c2 + a * s2, n);
        }
      }
    }
  });
}

}  // namespace

extern "C" {

// Without an up (null) the activation alone. The backward pass puts out into the place of its
// gradient, and into those of x and up their gradients.
#define OPENLOOP_GATED(NAME, T)                                                                    \
  void openloop_gated_##NAME(const T* x, const T* up, T* out, int64_t n, int64_t tanh_gelu) {      \
    gated(x, up, out, n, tanh_gelu);                                                               \
  }                                                                                                \
  void openloop_gated_backward_##NAME(T* grad, T* x, T* up, int64_t n, int64_t tanh_gelu) {        \
    gated_backward(grad, x, up, n, tanh_gelu);                                                     \
  }                                                                                                \
  void openloop_rotate_##NAME(T* x, int64_t stride, const float* cosines, const float* sines,      \
                              int64_t tokens, int64_t heads, int64_t size, int64_t back) {         \
    rotate(x, stride, cosines, sines, tokens, heads, size, back);                                  \
  }
OPENLOOP_GATED(fp32, float)
OPENLOOP_GATED(bf16, BF16)

}  // extern "C"
