// What the kernels share: vectors, the dropout masks of masks.py, an exponential, work on many
// rows.
//
// Vectors are ATen's own at::vec, so AVX2, AVX-512 and NEON come from one source; threads are
// torch's own. The masks are those of masks.py, bit for bit: element 32 k + l of a row with hash a
// is judged by 16 bits of mix(a ^ columns[16 k + l % 16]), the low ones for l < 16, else the high.

#pragma once

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using BF16 = c10::BFloat16;
using VF = at::vec::Vectorized<float>;
using VI = at::vec::Vectorized<int32_t>;
constexpr int64_t W = VF::size();
constexpr int64_t BLOCK = 32;  // elements judged by 16 hashes
static_assert(16 % W == 0, "a block of hashes must be whole vectors");

inline int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

struct Draw {  // as in masks.py; threshold 0: no dropout
  const int32_t* rows;
  const int32_t* columns;
  int32_t threshold;
  float scale;
};

// lowbias32 (C. Wellons, "Prospecting for hash functions"), less its first shift
inline VI mix(VI x) {
  x = x * VI(0x7feb352d);
  x = x ^ ((x >> VI(15)) & VI(0x1ffff));
  x = x * VI(static_cast<int32_t>(0x846ca68bu));
  return x ^ ((x >> VI(16)) & VI(0xffff));
}

struct Keep {  // all ones where an element stays: elements 32 k + l and 32 k + 16 + l of a row
  VI first, second;
};

inline Keep draw_keep(const Draw& draw, int32_t row, int64_t k, int64_t l) {
  const VI limit(draw.threshold - 1), low(0xffff);
  const VI h = mix(VI(row) ^ VI::loadu(draw.columns + 16 * k + l));
  return {(h & low) > limit, ((h >> VI(16)) & low) > limit};
}

// f(start of a stretch, its length up to W, which of its elements stay) over a row.
template <typename F>
inline void over_row(const Draw& draw, int64_t row, int64_t columns, F f) {
  const bool drops = draw.threshold > 0;
  for (int64_t k = 0; k < round_up(columns, BLOCK) / BLOCK; ++k) {
    for (int64_t l = 0; l < 16; l += W) {
      const Keep keep = drops ? draw_keep(draw, draw.rows[row], k, l) : Keep{VI(-1), VI(-1)};
      const int64_t first = BLOCK * k + l, second = first + 16;
      if (first < columns) f(first, std::min(W, columns - first), keep.first);
      if (second < columns) f(second, std::min(W, columns - second), keep.second);
    }
  }
}

inline VI bits(VF v) { return at::vec::cast<int32_t>(v); }
inline VF only(VF v, VI keep) { return at::vec::cast<float>(bits(v) & keep); }

inline VF load(const float* p, int64_t n = W) { return n == W ? VF::loadu(p) : VF::loadu(p, n); }
inline void save(float* p, VF v, int64_t n = W) { v.store(p, static_cast<int>(n)); }

inline VF load(const BF16* p, int64_t n = W) {
  VF wide;
  if (n == W) {
    at::vec::load_fp32_from_bf16(p, wide);
    return wide;
  }
  alignas(64) float values[W] = {};
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(p[i]);
  return VF::loadu(values);
}
inline void save(BF16* p, VF v, int64_t n = W) {
  at::vec::convert_float_bfloat16(v, v).store(p, static_cast<int>(n));
}

template <typename T>
inline void save_pair(T* p, VF first, VF second) {  // elements l and 16 + l of a block
  if constexpr (W == 16 && std::is_same_v<T, BF16>) {
    at::vec::convert_float_bfloat16(first, second).store(p);
  } else {
    save(p, first);
    save(p + 16, second);
  }
}

inline float sum(VF v) {
  return at::vec::vec_reduce_all<float>([](VF a, VF b) { return a + b; }, v);
}
inline float largest(VF v) {
  return at::vec::vec_reduce_all<float>([](VF a, VF b) { return at::vec::maximum(a, b); }, v);
}

// exp(x) for x up to 0 and a little above, to 3e-7 of 1 and exactly 1 at 0: 2^n, from the bits of a
// rounded sum, times 2^f for f in [-1/2, 1/2] (the polynomial of least relative error). NaN stays
// NaN, and what is below 1e-38 is 0.
inline VF exp_below_0(VF x) {
  // adding 1.5 * 2^23 leaves no fraction; 127 is the exponent's bias
  const VF shift(12582912.0f + 127.0f);
  x = at::vec::clamp_min(x * VF(1.44269504f), VF(-127.0f));
  const VF whole = x + shift, f = x - (whole - shift);
  VF y(1.3264727e-3f);
  for (const float c : {9.671513e-3f, 5.5507336e-2f, 0.24022242f, 0.693147f, 1.0f})
    y = at::vec::fmadd(y, f, VF(c));
  return y * at::vec::cast<float>(bits(whole) << VI(23));
}

template <typename F>
void over_rows(int64_t rows, int64_t columns, F body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(columns, 1)), body);
}

}  // namespace
