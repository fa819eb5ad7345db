// Element-wise kernels over rows for the CPU. Called through ctypes (native.py); the plain forms are
// in kernels.py.

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
      for (int64_t j = 0; j < columns; j += BLOCK) {
        for (int64_t l = 0; l < 16; l += W) {
          const Keep keep = draw_keep(draw, draw.rows[r], j / BLOCK, l);
          for (const auto& [at, mask] : {std::pair(j + l, keep.first), {j + 16 + l, keep.second}}) {
            const int64_t n = std::min(W, columns - at);
            if (n > 0) save(to + at, only(load(from + at, n), mask) * scale, n);
          }
        }
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

void openloop_drop_fp32(const float* x, float* y, int64_t rows, int64_t columns, const Draw* draw) {
  drop(x, y, rows, columns, *draw);
}

void openloop_drop_bf16(const BF16* x, BF16* y, int64_t rows, int64_t columns, const Draw* draw) {
  drop(x, y, rows, columns, *draw);
}

}  // extern "C"
