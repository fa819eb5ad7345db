// Element-wise kernels for the CPU: softmax and dropout in one pass over memory, with the dropout
// mask drawn in registers. Matrix products stay with torch (oneDNN, MKL).
//
// Vectors are ATen's own at::vec, so AVX2, AVX-512 and NEON come from this one source; threads are
// torch's own. The masks are those of masks.py, bit for bit: element 32 k + l of a row with hash a
// is judged by 16 bits of mix(a ^ columns[16 k + l % 16]), the low ones for l < 16, else the high.
// Called through ctypes (native.py); the plain forms are in kernels.py.

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace {

using VF = at::vec::Vectorized<float>;
using VI = at::vec::Vectorized<int32_t>;
constexpr int64_t W = VF::size();
constexpr int64_t BLOCK = 32;  // elements judged by 16 hashes
static_assert(16 % W == 0, "a block of hashes must be whole vectors");

inline VI mix(VI x) {  // lowbias32 (C. Wellons, "Prospecting for hash functions"), less its first shift
  x = x * VI(0x7feb352d);
  x = x ^ ((x >> VI(15)) & VI(0x1ffff));
  x = x * VI(static_cast<int32_t>(0x846ca68bu));
  return x ^ ((x >> VI(16)) & VI(0xffff));
}

// keep[0, 32 blocks): `scale` where an element stays, 0 where it is dropped.
inline void draw_keep(float* keep, int32_t row, const int32_t* columns, int64_t blocks,
                      int32_t threshold, float scale) {
  const VI a(row), limit(threshold - 1), low(0xffff);
  const VI bits = at::vec::cast<int32_t>(VF(scale));
  for (int64_t k = 0; k < blocks; ++k) {
    for (int64_t l = 0; l < 16; l += W) {
      const VI h = mix(a ^ VI::loadu(columns + 16 * k + l));
      const VI first = (h & low) > limit, second = ((h >> VI(16)) & low) > limit;
      at::vec::cast<float>(first & bits).store(keep + BLOCK * k + l);
      at::vec::cast<float>(second & bits).store(keep + BLOCK * k + 16 + l);
    }
  }
}

inline VF load(const float* p, int64_t n) { return n == W ? VF::loadu(p) : VF::loadu(p, n); }
inline void save(float* p, VF v, int64_t n) { n == W ? v.store(p) : v.store(p, static_cast<int>(n)); }

inline VF load(const c10::BFloat16* p, int64_t n) {
  VF wide;
  if (n == W) {
    at::vec::load_fp32_from_bf16(p, wide);
    return wide;
  }
  alignas(64) float values[W] = {};
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(p[i]);
  return VF::loadu(values);
}
inline void save(c10::BFloat16* p, VF v, int64_t n) {
  at::vec::convert_float_bfloat16(v, v).store(p, static_cast<int>(n));
}

inline float sum(VF v) { return at::vec::vec_reduce_all<float>([](VF a, VF b) { return a + b; }, v); }

template <typename F>
void over_rows(int64_t rows, int64_t columns, F body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(columns, 1)), body);
}

int64_t blocks_of(int64_t columns) { return (columns + BLOCK - 1) / BLOCK; }

template <typename T>
void drop(const T* x, T* y, int64_t rows, int64_t columns, const int32_t* row_hash,
          const int32_t* column_hash, int32_t threshold, float scale) {
  over_rows(rows, columns, [&](int64_t begin, int64_t end) {
    std::vector<float> keep(blocks_of(columns) * BLOCK);
    for (int64_t r = begin; r < end; ++r) {
      draw_keep(keep.data(), row_hash[r], column_hash, blocks_of(columns), threshold, scale);
      for (int64_t j = 0; j < columns; j += W) {
        const int64_t n = std::min(W, columns - j);
        save(y + r * columns + j, load(x + r * columns + j, n) * VF::loadu(keep.data() + j), n);
      }
    }
  });
}

template <typename T>
void softmax_drop_backward(float* scores, float* grad, T* kept, T* grad_scores, const float* lse,
                           int64_t heads, int64_t queries, int64_t keys, int64_t stride,
                           const int32_t* row_hash, const int32_t* column_hash, int32_t threshold,
                           float keep_scale, float scale) {
  over_rows(heads * queries, keys, [&](int64_t begin, int64_t end) {
    std::vector<float> keep(blocks_of(keys) * BLOCK, 1.0f);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t place = r / queries * stride + r % queries;
      if (threshold > 0)
        draw_keep(keep.data(), row_hash[place], column_hash, blocks_of(keys), threshold, keep_scale);
      float* s = scores + r * keys;
      float* g = grad + r * keys;
      const VF shift(lse[place]), factor(scale), poison(lse[place] - lse[place]);
      VF total(0.0f);
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t n = std::min(W, keys - j);
        const VF p = (load(s + j, n) * factor - shift).exp_u20() + poison;
        const VF mine = load(g + j, n) * VF::loadu(keep.data() + j);  // 0 beyond the last key
        total = total + p * mine;
        save(s + j, p, n);
        save(g + j, mine, n);
      }
      const VF mean(sum(total));
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t n = std::min(W, keys - j);
        const VF p = load(s + j, n), mine = load(g + j, n);
        save(kept + r * keys + j, p * VF::loadu(keep.data() + j), n);
        save(grad_scores + r * keys + j, p * (mine - mean) * factor, n);
      }
    }
  });
}

}  // namespace

extern "C" {

int64_t openloop_vector_width() { return W; }

int64_t openloop_threads() {  // how many threads a loop over many rows really gets
  std::atomic<int64_t> seen{0};
  at::parallel_for(0, 4096, 1, [&](int64_t, int64_t) { seen += 1; });
  return seen;
}

void openloop_drop_fp32(const float* x, float* y, int64_t rows, int64_t columns,
                        const int32_t* row_hash, const int32_t* column_hash, int32_t threshold,
                        float scale) {
  drop(x, y, rows, columns, row_hash, column_hash, threshold, scale);
}

void openloop_drop_bf16(const c10::BFloat16* x, c10::BFloat16* y, int64_t rows, int64_t columns,
                        const int32_t* row_hash, const int32_t* column_hash, int32_t threshold,
                        float scale) {
  drop(x, y, rows, columns, row_hash, column_hash, threshold, scale);
}

// scores (heads, queries, keys) -> dropped softmax of scale * scores, in place; lse and row_hash
// are (heads, >= queries) with `stride` from head to head. threshold 0: no dropout.
void openloop_softmax_drop(float* scores, float* lse, int64_t heads, int64_t queries, int64_t keys,
                           int64_t stride, const int32_t* row_hash, const int32_t* column_hash,
                           int32_t threshold, float keep_scale, float scale) {
  over_rows(heads * queries, keys, [&](int64_t begin, int64_t end) {
    std::vector<float> keep(blocks_of(keys) * BLOCK, 1.0f);
    const VF lowest(-std::numeric_limits<float>::infinity()), factor(scale);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t place = r / queries * stride + r % queries;
      if (threshold > 0)
        draw_keep(keep.data(), row_hash[place], column_hash, blocks_of(keys), threshold, keep_scale);
      float* s = scores + r * keys;
      VF top = lowest;
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t n = std::min(W, keys - j);
        top = at::vec::maximum(top, VF::set(lowest, load(s + j, n), n));
      }
      const float largest = scale * at::vec::vec_reduce_all<float>(
          [](VF a, VF b) { return at::vec::maximum(a, b); }, top);
      VF total(0.0f);
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t n = std::min(W, keys - j);
        const VF e = (load(s + j, n) * factor - VF(largest)).exp_u20();
        total = total + VF::set(VF(0.0f), e, n);
        save(s + j, e, n);
      }
      const float all = sum(total);
      lse[place] = largest + std::log(all);
      const VF inverse(1.0f / all + (largest - largest));  // NaN for NaN and inf: exp hides them
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t n = std::min(W, keys - j);
        save(s + j, load(s + j, n) * inverse * VF::loadu(keep.data() + j), n);
      }
    }
  });
}

// From raw scores and the gradient of the dropped probabilities (both overwritten): the dropped
// probabilities again, and the gradient of the raw scores. `kept` may be `scores`, `grad_scores`
// may be `grad`.
void openloop_softmax_drop_backward_fp32(float* scores, float* grad, float* kept,
                                         float* grad_scores, const float* lse, int64_t heads,
                                         int64_t queries, int64_t keys, int64_t stride,
                                         const int32_t* row_hash, const int32_t* column_hash,
                                         int32_t threshold, float keep_scale, float scale) {
  softmax_drop_backward(scores, grad, kept, grad_scores, lse, heads, queries, keys, stride,
                        row_hash, column_hash, threshold, keep_scale, scale);
}

void openloop_softmax_drop_backward_bf16(float* scores, float* grad, c10::BFloat16* kept,
                                         c10::BFloat16* grad_scores, const float* lse,
                                         int64_t heads, int64_t queries, int64_t keys,
                                         int64_t stride, const int32_t* row_hash,
                                         const int32_t* column_hash, int32_t threshold,
                                         float keep_scale, float scale) {
  softmax_drop_backward(scores, grad, kept, grad_scores, lse, heads, queries, keys, stride,
                        row_hash, column_hash, threshold, keep_scale, scale);
}

}  // extern "C"
