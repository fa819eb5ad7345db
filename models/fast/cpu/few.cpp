// Products of a few rows with a weight, as one short text has them. The weight is read from memory
// once, four of its rows at a time, which stay in the nearest cache while all rows pass by; torch's
// own (MKL) reads and packs both sides first. Gain: benchmarks/LOG.md 45.

#include "kernels.h"

namespace {

// The sums of a tile stay in registers: of sixteen, twelve, and one vector of each row; with
// sixteen floats at a time there are thirty-two.
constexpr int64_t OUTS = 4, ROWS = W >= 16 ? 6 : 3, BLOCK_OUTS = 16;

struct Product {  // y (rows, outs) = x (rows, k) w (outs, k)^T + b (outs), b may be null
  int64_t rows, k, outs;
  const float *x, *w, *b;
  float* y;
};

template <int64_t O, int64_t R>  // outputs o to o + O of rows r to r + R
inline void tile(const Product& it, int64_t o, int64_t r) {
  const float *x = it.x + r * it.k, *w = it.w + o * it.k;
  VF sums[O][R];
  for (int64_t i = 0; i < O; ++i)
    for (int64_t j = 0; j < R; ++j) sums[i][j] = VF(0.0f);
  int64_t p = 0;
  for (; p + W <= it.k; p += W) {
    VF rows[R];
    for (int64_t j = 0; j < R; ++j) rows[j] = load(x + j * it.k + p);
    for (int64_t i = 0; i < O; ++i) {
      const VF weight = load(w + i * it.k + p);
      for (int64_t j = 0; j < R; ++j) sums[i][j] = at::vec::fmadd(weight, rows[j], sums[i][j]);
    }
  }
  for (int64_t i = 0; i < O; ++i) {
    for (int64_t j = 0; j < R; ++j) {
      float total = sum(sums[i][j]);
      for (int64_t q = p; q < it.k; ++q) total += w[i * it.k + q] * x[j * it.k + q];
      it.y[(r + j) * it.outs + o + i] = it.b == nullptr ? total : total + it.b[o + i];
    }
  }
}

template <int64_t O, int64_t R>  // the last `rows` rows, up to R
void last_rows(const Product& it, int64_t o, int64_t r, int64_t rows) {
  if (rows == R)
    tile<O, R>(it, o, r);
  else if constexpr (R > 1)
    last_rows<O, R - 1>(it, o, r, rows);
}

template <int64_t O>  // outputs o to o + O of all rows
void outputs(const Product& it, int64_t o) {
  for (int64_t r = 0; r < it.rows; r += ROWS)
    last_rows<O, ROWS>(it, o, r, std::min(ROWS, it.rows - r));
}

}  // namespace

extern "C" {

// Each output is summed in one order, whatever the threads and the rows beside it.
void openloop_few_fp32(int64_t rows, int64_t k, int64_t outs, const float* x, const float* w,
                       const float* b, float* y) {
  const Product it{rows, k, outs, x, w, b, y};
  const int64_t grain = std::max<int64_t>(1, 65536 / (BLOCK_OUTS * k));
  at::parallel_for(0, round_up(outs, BLOCK_OUTS) / BLOCK_OUTS, grain, [&](int64_t from, int64_t to) {
    int64_t o = from * BLOCK_OUTS;
    const int64_t end = std::min(outs, to * BLOCK_OUTS);
    for (; o + OUTS <= end; o += OUTS) outputs<OUTS>(it, o);
    for (; o < end; ++o) outputs<1>(it, o);
  });
}

}  // extern "C"
