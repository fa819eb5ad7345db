// What the two passes of attention share: matrix products between buffers that stay in cache, and
// the way through the heads of all texts.
//
// The products of bf16 are oneDNN's (brgemm, through torch) and add up in fp32. They want their
// right side in pairs of rows: (k, n) at [k / 2][n][k % 2]. Those of fp32 are written here: torch
// has MKL's, which copies both sides at each call, as long as such small products take.
//
// In a bf16 left side written by save_left, elements l and 16 + l of a block of 32 are neighbours,
// so that two vectors of fp32 become one by shifting. Its right side is made by pack, which pairs
// rows l and 16 + l.

#pragma once

#include <ATen/native/CPUBlas.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "kernels.h"

namespace {

constexpr int64_t QUERIES = 32;  // worked on at a time

template <typename T>
constexpr int64_t PAIR = std::is_same_v<T, BF16> ? 2 : 1;

// Numbers from row to row of a (rows, columns) buffer. Rows a multiple of 512 bytes apart would
// fall on few lines of the cache: at 256 columns everything took twice as long.
inline int64_t width_of(int64_t columns) { return columns % 128 == 0 ? columns + 32 : columns; }

template <typename T>
struct Matrix {
  T* data;
  int64_t width;
};

constexpr int64_t VECTORS = 2, ROWS = W == 16 ? 12 : 6;  // of a tile that stays in registers

template <int64_t R>  // c (R, VECTORS * W) = or += a (R, k) b (k, VECTORS * W)
inline void multiply_tile(int64_t k, Matrix<const float> a, Matrix<const float> b, Matrix<float> c,
                          bool add) {
  VF sums[R][VECTORS];
  for (int64_t r = 0; r < R; ++r)
    for (int64_t v = 0; v < VECTORS; ++v)
      sums[r][v] = add ? load(c.data + r * c.width + v * W) : VF(0.0f);
  for (int64_t p = 0; p < k; ++p) {
    VF right[VECTORS];
    for (int64_t v = 0; v < VECTORS; ++v) right[v] = load(b.data + p * b.width + v * W);
    for (int64_t r = 0; r < R; ++r) {
      const VF left(a.data[r * a.width + p]);
      for (int64_t v = 0; v < VECTORS; ++v)
        sums[r][v] = at::vec::fmadd(left, right[v], sums[r][v]);
    }
  }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t v = 0; v < VECTORS; ++v) save(c.data + r * c.width + v * W, sums[r][v]);
}

template <int64_t R>  // the last `rows` of a product, up to R of them
void multiply_rest(int64_t rows, int64_t k, Matrix<const float> a, Matrix<const float> b,
                   Matrix<float> c, bool add) {
  if (rows == R)
    multiply_tile<R>(k, a, b, c, add);
  else if constexpr (R > 1)
    multiply_rest<R - 1>(rows, k, a, b, c, add);
}

template <typename T>  // c (m, n) = or += a (m, k) b (k, n)
void multiply(int64_t m, int64_t n, int64_t k, Matrix<const T> a, Matrix<const T> b,
              Matrix<float> c, bool add = false) {
  if constexpr (std::is_same_v<T, float>) {
    const int64_t whole = n / (VECTORS * W) * VECTORS * W;
    for (int64_t j = 0; j < whole; j += VECTORS * W)
      for (int64_t i = 0; i < m; i += ROWS)
        multiply_rest<ROWS>(std::min(ROWS, m - i), k, {a.data + i * a.width, a.width},
                            {b.data + j, b.width}, {c.data + i * c.width + j, c.width}, add);
    if (whole == n) return;
    b.data += whole, c.data += whole, n -= whole;
  }
  at::native::cpublas::brgemm(m, n, k, a.width, b.width, c.width, add, a.data, b.data, c.data,
                              PAIR<T> == 2);
}

template <typename T>  // rows of T that stand where rows of fp32 stood
Matrix<const T> in_place(const float* data, int64_t width) {
  return {reinterpret_cast<const T*>(data),
          width * static_cast<int64_t>(sizeof(float) / sizeof(T))};
}

template <typename T>
struct Heads {  // (tokens or queries, heads, size): contiguous but for the stride from row to row
  T* data;
  int64_t stride;
};

template <typename T>
struct Rows {  // of one head of one text: `count` rows of `size` numbers
  T* data;
  int64_t stride, count, size;
  T* row(int64_t r) const { return data + r * stride; }
};

template <typename T>  // to (columns, rows) = from (rows, columns) transposed; T has 2 or 4 bytes
void transpose(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t rows,
               int64_t columns) {
  using Number = std::conditional_t<sizeof(T) == 4, float, BF16>;  // moved, never looked at
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t c = 0; c < columns; c += 16) {
      const T* x = from + r * from_stride + c;
      T* y = to + c * to_stride + r;
      if (rows - r >= 16 && columns - c >= 16) {
        at::vec::transpose_mxn<Number, 16, 16>(reinterpret_cast<const Number*>(x), from_stride,
                                               reinterpret_cast<Number*>(y), to_stride);
        continue;
      }
      for (int64_t i = 0; i < std::min<int64_t>(16, rows - r); ++i)
        for (int64_t j = 0; j < std::min<int64_t>(16, columns - c); ++j)
          y[j * to_stride + i] = x[i * from_stride + j];
    }
  }
}

template <typename T>  // to (size, columns): x transposed, as the right side of a product
void pack_transposed(T* to, int64_t width, Rows<const T> x, int64_t columns) {
  using Group = std::conditional_t<PAIR<T> == 2, int32_t, float>;  // a pair moves as one
  auto* groups = reinterpret_cast<Group*>(to);
  const int64_t rows = x.size / PAIR<T>;
  transpose(groups, width, reinterpret_cast<const Group*>(x.data), x.stride / PAIR<T>, x.count,
            rows);
  for (int64_t d = 0; d < rows; ++d)
    std::fill(groups + d * width + x.count, groups + d * width + columns, Group{0});
}

template <typename T>  // to (rows, size), whole blocks: x, as the right side for save_left's
void pack(T* to, Rows<const T> x, int64_t rows) {
  const std::vector<T> none(x.size);
  const auto row = [&](int64_t r) { return r < x.count ? x.row(r) : none.data(); };
  for (int64_t r = 0; r < rows; r += BLOCK, to += BLOCK * x.size) {
    for (int64_t i = 0; i < BLOCK / PAIR<T>; ++i) {
      if constexpr (PAIR<T> == 1) {
        std::memcpy(to + i * x.size, row(r + i), x.size * sizeof(T));
      } else {  // pairs as one number of 32 bits, which compilers know how to vectorise
        const auto *even = reinterpret_cast<const uint16_t*>(row(r + i)),
                   *odd = reinterpret_cast<const uint16_t*>(row(r + 16 + i));
        auto* pairs = reinterpret_cast<uint32_t*>(to) + i * x.size;
        for (int64_t d = 0; d < x.size; ++d) pairs[d] = even[d] | uint32_t{odd[d]} << 16;
      }
    }
  }
}

// to (rows, size): rows from `first` on, zeros beyond the last. Products that read them where they
// lie are slower: rows far apart fall on few lines of the cache.
template <typename T>
void gather(T* to, Rows<const T> x, int64_t first, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r, to += x.size) {
    if (first + r < x.count)
      std::memcpy(to, x.row(first + r), x.size * sizeof(T));
    else
      std::memset(to, 0, x.size * sizeof(T));
  }
}

template <typename T>  // to (size): from, times factor
void save_scaled(T* to, const float* from, int64_t size, float factor) {
  const VF by(factor);
  int64_t d = 0;
  for (; d + BLOCK <= size; d += BLOCK)
    for (int64_t l = d; l < d + 16; l += W)
      save_pair(to + l, load(from + l) * by, load(from + l + 16) * by);
  for (; d < size; d += W)
    save(to + d, load(from + d, std::min(W, size - d)) * by, std::min(W, size - d));
}

const VI UPPER(static_cast<int32_t>(0xffff0000u));

inline VI rounded(VF v) { return bits(v) + VI(0x8000); }  // the upper half is the nearest bf16

inline VI pair_up(VI even, VI odd) {  // what rounded() gave, as bf16 side by side
  return (odd & UPPER) | ((even >> VI(16)) & VI(0xffff));
}

template <typename T>  // elements l and 16 + l of a block of 32, of a row of a left side
inline void save_left(T* block, int64_t l, VF first, VF second) {
  if constexpr (PAIR<T> == 2) {
    pair_up(rounded(first), rounded(second)).store(reinterpret_cast<int32_t*>(block) + l);
  } else {
    save(block + l, first);
    save(block + 16 + l, second);
  }
}

template <typename T>  // rows (2, n) -> the right side of a product
inline void save_right(T* to, VF even, VF odd, int64_t column, int64_t width) {
  if constexpr (PAIR<T> == 2) {
    pair_up(rounded(even), rounded(odd)).store(reinterpret_cast<int32_t*>(to) + column);
  } else {
    save(to + column, even);
    save(to + width + column, odd);
  }
}

struct Shape {
  const int64_t *spans, *asked;  // of each text: first token and end, first query and end
  int64_t texts, heads, queries, size;
  int64_t shared, causal;  // heads of queries to one of keys; whether a query looks back only
  float scale;             // not negative
  Draw draw;    // rows (heads, queries)
  // in an array (heads, queries)
  int64_t place(int64_t text, int64_t head, int64_t query) const {
    return head * queries + asked[2 * text] + query;
  }
  int32_t row(int64_t place) const { return draw.threshold > 0 ? draw.rows[place] : 0; }
  // of a text's keys, those that the query sees; the last query sees all
  int64_t seen(int64_t query, int64_t queries_, int64_t keys) const {
    return causal ? keys - queries_ + query + 1 : keys;
  }
  int64_t longest() const {
    int64_t most = 0;
    for (int64_t i = 0; i < texts; ++i) most = std::max(most, spans[2 * i + 1] - spans[2 * i]);
    return most;
  }
};

class Scratch {  // kept by its thread from call to call: fresh memory comes page by page
 public:
  template <typename T>
  T* take(int64_t count) {
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(memory_.data() + used_ - round_up(count * sizeof(T), 64));
  }
  void reset(int64_t bytes) {
    used_ = 0;
    if (static_cast<int64_t>(memory_.size()) < bytes) memory_.resize(bytes);
  }

 private:
  std::vector<char> memory_;
  int64_t used_ = 0;
};

// body(text, group, scratch) for every head of keys of every text, the longest first: each thread
// takes the next one when it is done, and what one writes no other reads.
template <typename T, typename F>
void over_heads(const Shape& shape, int64_t bytes, F body) {
  const int64_t groups = shape.heads / shape.shared;
  std::vector<int64_t> order(shape.texts);
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t i) { return shape.spans[2 * i + 1] - shape.spans[2 * i]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return length(a) > length(b); });
  std::atomic<int64_t> next{0};
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    thread_local Scratch scratch;
    for (int64_t i; (i = next++) < shape.texts * groups;) {
      scratch.reset(bytes);
      if (length(order[i / groups]) > 0) body(order[i / groups], i % groups, scratch);
    }
    at::native::cpublas::brgemm_release(PAIR<T> == 2);
  });
}

struct Block {  // QUERIES of a head or fewer: the first one, how many, those with filling up to
  int64_t head, start, real, m, columns;  // whole vectors, and up to which column they see keys
};

// body(block) for all queries of the heads that share these keys. What lies behind the keys that
// the last one sees is no work; oneDNN makes a kernel for each width, so those of bf16 are fewer.
template <typename T, typename F>
void over_queries(const Shape& shape, int64_t text, int64_t group, int64_t keys, F body) {
  const int64_t *asked = shape.asked + 2 * text, count = asked[1] - asked[0];
  for (int64_t head = group * shape.shared; head < (group + 1) * shape.shared; ++head) {
    for (int64_t start = 0; start < count; start += QUERIES) {
      const int64_t real = std::min(QUERIES, count - start);
      const int64_t seen = shape.seen(start + real - 1, count, keys);
      const int64_t columns = std::min(round_up(seen, PAIR<T> * BLOCK), round_up(keys, BLOCK));
      body(Block{head, start, real, round_up(real, 16), columns});
    }
  }
}

template <typename T>  // those of a head within a span of tokens or queries
Rows<T> rows_of(Heads<T> x, const int64_t* span, const Shape& shape, int64_t head) {
  return {x.data + span[0] * x.stride + head * shape.size, x.stride, span[1] - span[0], shape.size};
}

}  // namespace
