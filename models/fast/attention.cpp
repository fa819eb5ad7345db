// Attention over each text on its own, the forward pass: softmax and dropout between two matrix
// products, for 32 queries of one head at a time. Scores are fp32 and never rounded.
//
//     S = Q K^T                       (m, keys)
//     E = keep * exp(scale S - top)
//     O = E V * drop / sum            (m, size)

#include <tuple>

#include "products.h"

namespace {

// One query: scores (columns) fp32 -> exp(scale * scores - top), dropped, in their place as T.
// Returns {log of the sum, 1 / sum of the values as rounded to T}: dividing by the latter cancels
// the part of the rounding error that all share. NaN where a score is NaN or infinite, which exp
// hides.
template <typename T>
std::pair<float, float> soften(float* s, int64_t keys, int64_t columns, float scale,
                               const Draw& draw, int32_t row) {
  for (int64_t j = keys; j < columns; ++j) s[j] = -std::numeric_limits<float>::infinity();
  VF most = load(s);
  for (int64_t j = W; j < columns; j += W) most = at::vec::maximum(most, load(s + j));
  const float top = scale * largest(most);
  const VF factor(scale), shift(top);
  VF total(0.0f), stored(0.0f);
  T* to = reinterpret_cast<T*>(s);
  for (int64_t k = 0; k < columns / BLOCK; ++k) {
    VF e[32 / W];  // a bf16 block is written where fp32 is still to be read
    for (int64_t i = 0; i < 32 / W; ++i) {
      e[i] = (load(s + BLOCK * k + i * W) * factor - shift).exp_u20();
      total = total + e[i];
      if constexpr (PAIR<T> == 2) {
        e[i] = at::vec::cast<float>(rounded(e[i]) & UPPER);
        stored = stored + e[i];
      }
    }
    for (int64_t l = 0; l < 16; l += W) {
      VF &a = e[l / W], &b = e[(16 + l) / W];
      if (draw.threshold > 0) {
        const Keep keep = draw_keep(draw, row, k, l);
        a = only(a, keep.first);
        b = only(b, keep.second);
      }
      save_pair(to + BLOCK * k + l, a, b);
    }
  }
  const float all = sum(total), poison = top - top;
  return {top + std::log(all) + poison, 1.0f / (PAIR<T> == 2 ? sum(stored) : all) + poison};
}

template <typename T>
void attend(const Shape& shape, Heads<const T> q, Heads<const T> k, Heads<const T> v, Heads<T> out,
            float* lse) {
  const int64_t size = shape.size, most = width_of(round_up(shape.longest(), BLOCK));
  const int64_t bytes = 4 * ((3 * most + 2 * QUERIES) * size + QUERIES * most) + 64 * 6;
  over_heads<T>(shape, bytes, [&](int64_t text, int64_t head, Scratch& scratch) {
    const int64_t *span = shape.spans + 2 * text, *asked = shape.asked + 2 * text;
    const auto Q = rows_of(q, asked, shape, head), K = rows_of(k, span, shape, head);
    const auto O = rows_of(out, asked, shape, head);
    const int64_t columns = round_up(K.count, BLOCK), width = width_of(columns);
    T *plain = scratch.take<T>(columns * size), *keys = scratch.take<T>(width * size);
    T *values = scratch.take<T>(columns * size), *queries = scratch.take<T>(QUERIES * size);
    float *scores = scratch.take<float>(QUERIES * width),
          *sums = scratch.take<float>(QUERIES * size);
    gather(plain, K, 0, columns);
    pack_transposed(keys, width, plain, columns, size);
    gather(plain, rows_of(v, span, shape, head), 0, columns);
    pack(values, plain, columns, size);
    for (int64_t start = 0; start < Q.count; start += QUERIES) {
      const int64_t real = std::min(QUERIES, Q.count - start), m = round_up(real, 16);
      gather(queries, Q, start, m);
      multiply<T>(m, columns, size, {queries, size}, {keys, width}, {scores, width});
      float inverse[QUERIES];
      for (int64_t r = 0; r < real; ++r) {
        const int64_t place = shape.place(text, head, start + r);
        std::tie(lse[place], inverse[r]) = soften<T>(scores + r * width, K.count, columns,
                                                     shape.scale, shape.draw, shape.row(place));
      }
      multiply<T>(m, size, columns, in_place<T>(scores, width), {values, size}, {sums, size});
      for (int64_t r = 0; r < real; ++r) {
        const VF factor(inverse[r] * shape.draw.scale);
        for (int64_t d = 0; d < size; d += W) {
          const int64_t n = std::min(W, size - d);
          save(O.row(start + r) + d, load(sums + r * size + d, n) * factor, n);
        }
      }
    }
  });
}

}  // namespace

extern "C" {

int64_t openloop_bf16_products() {  // whether this processor has bf16 products that add up in fp32
  std::vector<BF16> ones(32 * 32, BF16(1.0f));
  std::vector<float> out(32 * 32);
  try {
    multiply<BF16>(32, 32, 32, {ones.data(), 32}, {ones.data(), 32}, {out.data(), 32});
    at::native::cpublas::brgemm_release(true);
  } catch (const std::exception&) {
    return 0;
  }
  return out[0] == 32.0f;
}

// q (queries, heads, size) and k, v (tokens, heads, size), contiguous but for the given strides
// from row to row -> out like q, and lse (heads, queries): the log of each query's sum.
#define OPENLOOP_ATTEND(NAME, T)                                                                  \
  void openloop_attend_##NAME(const Shape* shape, const int64_t* strides, const T* q, const T* k, \
                              const T* v, T* out, float* lse) {                                   \
    attend<T>(*shape, {q, strides[0]}, {k, strides[1]}, {v, strides[2]}, {out, strides[3]}, lse); \
  }
OPENLOOP_ATTEND(fp32, float)
OPENLOOP_ATTEND(bf16, BF16)

}  // extern "C"
