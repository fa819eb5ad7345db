// Attention over each text on its own, the forward pass: softmax and dropout between two matrix
// products, for 32 queries of one head at a time. Scores are fp32 and never rounded.
//
//     S = Q K^T                       (m, keys)
//     E = keep * exp(scale S - top)
//     O = E V * drop / sum            (m, size)

#include <tuple>

#include "products.h"

namespace {

// One query: scores (columns) fp32 -> exp(scale * scores - top), dropped, in their place as the
// left side of a product. Returns {log of the sum, 1 / sum of the values as rounded to T}: dividing
// by the latter cancels the part of the rounding error that all share. Both are NaN where a score
// is NaN or +infinity.
template <typename T>
std::pair<float, float> soften(float* s, int64_t keys, int64_t columns, float scale,
                               const Draw& draw, int32_t row) {
  std::fill(s + keys, s + columns, -std::numeric_limits<float>::infinity());
  VF most = load(s);
  for (int64_t j = W; j < columns; j += W) most = at::vec::clamp_min(load(s + j), most);
  const float top = scale * largest(most);
  const VF factor(scale), shift(top);
  VF total(0.0f), stored(0.0f);
  T* to = reinterpret_cast<T*>(s);
  for (int64_t k = 0; k < columns; k += BLOCK) {
    for (int64_t l = 0; l < 16; l += W) {
      VF a = exp_below_0(load(s + k + l) * factor - shift);
      VF b = exp_below_0(load(s + k + 16 + l) * factor - shift);
      total = total + (a + b);
      if constexpr (PAIR<T> == 2) {
        a = at::vec::cast<float>(rounded(a) & UPPER);
        b = at::vec::cast<float>(rounded(b) & UPPER);
        stored = stored + (a + b);
      }
      if (draw.threshold > 0) {
        const Keep keep = draw_keep(draw, row, k / BLOCK, l);
        a = only(a, keep.first);
        b = only(b, keep.second);
      }
      save_left(to + k, l, a, b);
    }
  }
  const float all = sum(total);
  return {top + std::log(all), 1.0f / (PAIR<T> == 2 ? sum(stored) : all)};
}

template <typename T>
void attend(const Shape& shape, Heads<const T> q, Heads<const T> k, Heads<const T> v, Heads<T> out,
            float* lse) {
  const int64_t size = shape.size, most = width_of(round_up(shape.longest(), BLOCK));
  const int64_t bytes = 4 * ((2 * most + 2 * QUERIES) * size + QUERIES * most) + 64 * 5;
  over_heads<T>(shape, bytes, [&](int64_t text, int64_t group, Scratch& scratch) {
    const int64_t *span = shape.spans + 2 * text, *asked = shape.asked + 2 * text;
    const auto K = rows_of(k, span, shape, group);
    const int64_t columns = round_up(K.count, BLOCK), width = width_of(columns);
    T *keys = scratch.take<T>(width * size), *values = scratch.take<T>(columns * size);
    T* queries = scratch.take<T>(QUERIES * size);
    float *scores = scratch.take<float>(QUERIES * width),
          *sums = scratch.take<float>(QUERIES * size);
    pack_transposed(keys, width, K, columns);
    pack(values, rows_of(v, span, shape, group), columns);
    over_queries<T>(shape, text, group, K.count, [&](const Block& at) {
      const auto Q = rows_of(q, asked, shape, at.head);
      const auto O = rows_of(out, asked, shape, at.head);
      gather(queries, Q, at.start, at.m);
      multiply<T>(at.m, at.columns, size, {queries, size}, {keys, width}, {scores, width});
      float inverse[QUERIES];
      for (int64_t r = 0; r < at.real; ++r) {
        const int64_t place = shape.place(text, at.head, at.start + r);
        std::tie(lse[place], inverse[r]) =
            soften<T>(scores + r * width, shape.seen(at.start + r, Q.count, K.count), at.columns,
                      shape.scale, shape.draw, shape.row(place));
      }
      multiply<T>(at.m, size, at.columns, in_place<T>(scores, width), {values, size}, {sums, size});
      for (int64_t r = 0; r < at.real; ++r)
        save_scaled(O.row(at.start + r), sums + r * size, size, inverse[r] * shape.draw.scale);
    });
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

// q (queries, heads, size) and k, v (tokens, groups, size), contiguous but for the given strides
// from row to row, for bf16 of whole pairs -> out like q, and lse (heads, queries): the log of each
// query's sum.
#define OPENLOOP_ATTEND(NAME, T)                                                                  \
  void openloop_attend_##NAME(const Shape* shape, const int64_t* strides, const T* q, const T* k, \
                              const T* v, T* out, float* lse) {                                   \
    attend<T>(*shape, {q, strides[0]}, {k, strides[1]}, {v, strides[2]}, {out, strides[3]}, lse); \
  }
OPENLOOP_ATTEND(fp32, float)
OPENLOOP_ATTEND(bf16, BF16)

}  // extern "C"
