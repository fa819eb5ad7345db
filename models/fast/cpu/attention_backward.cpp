// The backward pass of attention.cpp: probabilities are worked out again from the log of their sum,
// for 32 queries of one head at a time. Right sides of products are written in their packed form.
//
//     P  = exp(scale S - lse)                    (m, keys)
//     dP = keep * G V^T
//     dS = P * (dP - sum(P dP))
//     dQ = dS K,  dK^T += Q^T dS,  dV^T += G^T (keep P)
//
// and at the end dQ and dK times scale * drop, dV times drop.

#include "products.h"

namespace {

// One query: scores (columns) -> probabilities, negative where dropped; grad -> the gradient of the
// probabilities before the dropout. Returns the sum of their products. NaN where lse is.
inline float harden(float* s, float* grad, int64_t keys, int64_t columns, float scale, float lse,
                    const Draw& draw, int32_t row) {
  std::fill(s + keys, s + columns, -std::numeric_limits<float>::infinity());
  const VF factor(scale), shift(lse);
  const VI sign = bits(VF(-0.0f));
  VF total(0.0f);
  for (int64_t k = 0; k < columns; k += BLOCK) {
    for (int64_t l = 0; l < 16; l += W) {
      float *s1 = s + k + l, *g1 = grad + k + l;
      VF p1 = exp_below_0(load(s1) * factor - shift);
      VF p2 = exp_below_0(load(s1 + 16) * factor - shift);
      VF m1 = load(g1), m2 = load(g1 + 16);
      if (draw.threshold > 0) {
        const Keep keep = draw_keep(draw, row, k / BLOCK, l);
        m1 = only(m1, keep.first);
        m2 = only(m2, keep.second);
        save(g1, m1);
        save(g1 + 16, m2);
        total = at::vec::fmadd(p1, m1, at::vec::fmadd(p2, m2, total));
        p1 = at::vec::cast<float>(bits(p1) | (sign & (keep.first ^ VI(-1))));
        p2 = at::vec::cast<float>(bits(p2) | (sign & (keep.second ^ VI(-1))));
      } else {
        total = at::vec::fmadd(p1, m1, at::vec::fmadd(p2, m2, total));
      }
      save(s1, p1);
      save(s1 + 16, p2);
    }
  }
  return sum(total);
}

// Two queries: from what harden() left, dS in the place of s, a left side (for dQ), and, as the
// right sides of products, dS and the dropped probabilities.
template <typename T>
void finish(float* s, const float* grad, int64_t columns, int64_t width, const float* total,
            T* grad_scores, T* kept) {
  const VF mean1(total[0]), mean2(total[1]);
  const VI magnitude(0x7fffffff);
  T *to1 = reinterpret_cast<T*>(s), *to2 = reinterpret_cast<T*>(s + width);
  for (int64_t k = 0; k < columns; k += BLOCK) {
    for (int64_t l = 0; l < 16; l += W) {
      VF d1[2], d2[2];
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t j = k + 16 * half + l;
        const VF p1 = load(s + j), p2 = load(s + width + j);
        d1[half] = only(p1, magnitude) * (load(grad + j) - mean1);
        d2[half] = only(p2, magnitude) * (load(grad + width + j) - mean2);
        save_right(kept, at::vec::clamp_min(p1, VF(0.0f)), at::vec::clamp_min(p2, VF(0.0f)), j,
                   width);
        save_right(grad_scores, d1[half], d2[half], j, width);
      }
      save_left(to1 + k, l, d1[0], d1[1]);
      save_left(to2 + k, l, d2[0], d2[1]);
    }
  }
}

// harden() and finish() of a block of queries; those that are none leave nothing in any sum.
template <typename T>
void harden_all(const Shape& shape, int64_t text, int64_t keys, const Block& at, const float* lse,
                float* scores, float* grad, int64_t width, T* grad_scores, T* kept) {
  const int64_t *asked = shape.asked + 2 * text, count = asked[1] - asked[0];
  float totals[QUERIES];
  for (int64_t r = 0; r < at.real; ++r) {
    const int64_t place = shape.place(text, at.head, at.start + r);
    totals[r] = harden(scores + r * width, grad + r * width, shape.seen(at.start + r, count, keys),
                       at.columns, shape.scale, lse[place], shape.draw, shape.row(place));
  }
  for (int64_t r = at.real; r < at.m; ++r) {
    std::fill_n(scores + r * width, at.columns, 0.0f);
    std::fill_n(grad + r * width, at.columns, 0.0f);
    totals[r] = 0.0f;
  }
  for (int64_t r = 0; r < at.m; r += 2)
    finish(scores + r * width, grad + r * width, at.columns, width, totals + r,
           grad_scores + r * width, kept + r * width);
}

template <typename T>
struct Head {  // what the backward pass of one head of one text works on; right sides are packed
  T *keys, *values;                     // K^T, V^T (size, columns)
  T* keys_down;                         // (columns, size)
  T *queries, *grads;                   // (QUERIES, size)
  T *queries_t, *grads_t;               // (size, QUERIES)
  T *kept, *grad_scores;                // (QUERIES, columns)
  float *scores, *grad_kept, *dk, *dv;  // (QUERIES, columns) twice, (size, columns) twice
  float* rows;                          // (QUERIES, size): of dQ, in the end of dK and dV

  Head(Scratch& scratch, int64_t width, int64_t size) {
    for (T** part : {&keys, &values, &keys_down}) *part = scratch.take<T>(width * size);
    for (T** part : {&queries, &grads, &queries_t, &grads_t})
      *part = scratch.take<T>(QUERIES * size);
    for (T** part : {&kept, &grad_scores}) *part = scratch.take<T>(QUERIES * width);
    for (float** part : {&scores, &grad_kept}) *part = scratch.take<float>(QUERIES * width);
    for (float** part : {&dk, &dv}) *part = scratch.take<float>(width * size);
    rows = scratch.take<float>(QUERIES * size);
  }
  static int64_t bytes(int64_t width, int64_t size) {
    return 4 * (5 * width * size + 5 * QUERIES * size + 4 * QUERIES * width) + 64 * 16;
  }
};

template <typename T>  // x = from (size, columns) transposed, times factor, some `rows` at a time
void save_transposed(Rows<T> x, const float* from, int64_t width, float factor, float* rows) {
  for (int64_t start = 0; start < x.count; start += QUERIES) {
    const int64_t count = std::min(QUERIES, x.count - start);
    transpose(rows, x.size, from + start, width, x.size, QUERIES);
    for (int64_t r = 0; r < count; ++r)
      save_scaled(x.row(start + r), rows + r * x.size, x.size, factor);
  }
}

template <typename T>
struct Gradients {  // null where nobody asks
  Heads<T> q, k, v;
};

template <typename T>
void attend_backward(const Shape& shape, Heads<const T> q, Heads<const T> k, Heads<const T> v,
                     Heads<const T> grad, const float* lse, Gradients<T> to) {
  const int64_t size = shape.size;
  const float drop = shape.draw.scale, both = shape.scale * drop;
  const int64_t bytes = Head<T>::bytes(width_of(round_up(shape.longest(), BLOCK)), size);
  over_heads<T>(shape, bytes, [&](int64_t text, int64_t group, Scratch& scratch) {
    const int64_t *span = shape.spans + 2 * text, *asked = shape.asked + 2 * text;
    const auto K = rows_of(k, span, shape, group);
    const int64_t columns = round_up(K.count, BLOCK), width = width_of(columns);
    Head<T> w(scratch, width, size);
    pack_transposed(w.values, width, rows_of(v, span, shape, group), columns);
    pack_transposed(w.keys, width, K, columns);
    if (to.q.data) pack(w.keys_down, K, columns);
    std::fill_n(w.dk, width * size, 0.0f);
    std::fill_n(w.dv, width * size, 0.0f);
    over_queries<T>(shape, text, group, K.count, [&](const Block& at) {
      const auto Q = rows_of(q, asked, shape, at.head), G = rows_of(grad, asked, shape, at.head);
      gather(w.queries, Q, at.start, at.m);
      gather(w.grads, G, at.start, at.m);
      multiply<T>(at.m, at.columns, size, {w.queries, size}, {w.keys, width}, {w.scores, width});
      multiply<T>(at.m, at.columns, size, {w.grads, size}, {w.values, width},
                  {w.grad_kept, width});
      harden_all(shape, text, K.count, at, lse, w.scores, w.grad_kept, width, w.grad_scores,
                 w.kept);
      if (to.q.data) {
        multiply<T>(at.m, size, at.columns, in_place<T>(w.scores, width), {w.keys_down, size},
                    {w.rows, size});
        const auto dQ = rows_of(to.q, asked, shape, at.head);
        for (int64_t r = 0; r < at.real; ++r)
          save_scaled(dQ.row(at.start + r), w.rows + r * size, size, both);
      }
      if (to.k.data) {
        transpose(w.queries_t, QUERIES, w.queries, size, at.m, size);
        multiply<T>(size, at.columns, at.m, {w.queries_t, QUERIES}, {w.grad_scores, width},
                    {w.dk, width}, true);
      }
      if (to.v.data) {
        transpose(w.grads_t, QUERIES, w.grads, size, at.m, size);
        multiply<T>(size, at.columns, at.m, {w.grads_t, QUERIES}, {w.kept, width}, {w.dv, width},
                    true);
      }
    });
    if (to.k.data) save_transposed(rows_of(to.k, span, shape, group), w.dk, width, both, w.rows);
    if (to.v.data) save_transposed(rows_of(to.v, span, shape, group), w.dv, width, drop, w.rows);
  });
}

}  // namespace

extern "C" {

// As openloop_attend; grad is that of out. Null for a gradient that is not wanted.
#define OPENLOOP_ATTEND_BACKWARD(NAME, T)                                                          \
  void openloop_attend_backward_##NAME(const Shape* shape, const int64_t* strides, const T* q,     \
                                       const T* k, const T* v, const T* grad, T* dq, T* dk, T* dv, \
                                       const float* lse) {                                         \
    attend_backward<T>(*shape, {q, strides[0]}, {k, strides[1]}, {v, strides[2]},                  \
                       {grad, strides[3]}, lse,                                                    \
                       {{dq, strides[4]}, {dk, strides[5]}, {dv, strides[6]}});                    \
  }
OPENLOOP_ATTEND_BACKWARD(fp32, float)
OPENLOOP_ATTEND_BACKWARD(bf16, BF16)

}  // extern "C"
