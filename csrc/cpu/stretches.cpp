#include "cpu/stretches.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/bits.hpp"
#include "base/buffer.hpp"
#include "ops/rounding.hpp"

namespace gradkern::cpu {
namespace {

// Sums of some products of entries below it are subnormal.
constexpr float nearly_subnormal = 0x1p-118f;

// A part of an operand: rows that are `row` apart, of entries that are `column` apart.
struct Part {
  const float* data;
  std::int64_t rows, row, columns, column;
};

Part lying(Part x) { return x.row < x.column ? Part{x.data, x.columns, x.column, x.rows, x.row} : x; }

// Magnitudes as bits, which integer lanes compare. A NaN is the largest, and then nothing is called small for its products.
struct Sample {
  std::int32_t count = 0, small = 0, largest = 0;
  bool is_small() const { return 16 * small > count; }
  double most() const { return double{base::bit_cast<float>(largest)}; }

  // So many entries that lie side by side, or apart.
  template <class Entry>
  void look(std::int64_t entries, Entry entry) {
    const std::int32_t limit = base::bit_cast<std::int32_t>(nearly_subnormal);
    for (std::int64_t i = 0; i < entries; ++i) {
      const std::int32_t magnitude = base::bit_cast<std::int32_t>(entry(i)) & INT32_MAX;
      small += static_cast<std::int32_t>(magnitude > 0) & static_cast<std::int32_t>(magnitude < limit);
      largest = std::max(largest, magnitude);
    }
    count += static_cast<std::int32_t>(entries);
  }
};

template <class Test>
bool any_of(const Part& part, Test test) {
  const Part x = lying(part);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.data + r * x.row;
    std::int64_t found = 0;
    if (x.column == 1) {
      for (std::int64_t c = 0; c < x.columns; ++c) found += test(row[c]);
    } else {
      for (std::int64_t c = 0; c < x.columns; ++c) found += test(row[c * x.column]);
    }
    if (found) return true;
  }
  return false;
}

// A look at some entries, which decides how all are multiplied but not what comes of it.
Sample sample(const Part& part) {
  constexpr std::int64_t rows = 4, run = 16;
  const Part x = lying(part);
  Sample s;
  for (std::int64_t r = 0; r < std::min(rows, x.rows); ++r) {
    const std::int64_t first = std::max<std::int64_t>(0, x.columns - run) * r / rows;
    const float* entries = x.data + x.rows * r / rows * x.row + first * x.column;
    if (x.column == 1 && x.columns >= run) {
      s.look(run, [&](std::int64_t i) { return entries[i]; });
    } else {
      s.look(std::min(run, x.columns), [&](std::int64_t i) { return entries[i * x.column]; });
    }
  }
  return s;
}

enum class Way { plain, gradual, zeros };

constexpr std::int64_t stretch = 320;  // entries of k that go one way

struct Stretch {
  std::int64_t begin, end;
  Way way;
};

Part rows_of_a(const ProductLanes<float>& p, std::int64_t i, std::int64_t rows, std::int64_t k, std::int64_t depth) {
  return {p.a + i * p.a_row + k * p.a_step, rows, p.a_row, depth, p.a_step};
}

Part columns_of_b(const ProductLanes<float>& p, std::int64_t k, std::int64_t depth, std::int64_t j,
                  std::int64_t columns) {
  return {p.b + k * p.b_step + j * p.b_column, depth, p.b_step, columns, p.b_column};
}

Way way_of(const ProductLanes<float>& p, const ProductRange& range, std::int64_t k, std::int64_t depth) {
  const Part a_part = rows_of_a(p, range.row_begin, range.row_end - range.row_begin, k, depth);
  const Sample a = sample(a_part);
  if (a.largest == 0 && !any_of(a_part, [](float x) { return x != 0; })) return Way::zeros;
  const Sample b = sample(columns_of_b(p, k, depth, range.column_begin, range.column_end - range.column_begin));
  const double product = a.most() * b.most();
  const bool tiny = product > 0 && product < double{nearly_subnormal};
  return tiny || a.is_small() || b.is_small() ? Way::gradual : Way::plain;
}

// Neighbours that go the same way are one.
template <class Body>
void for_stretches(const ProductLanes<float>& p, const ProductRange& range, Body body) {
  Stretch s{0, 0, Way::plain};
  for (std::int64_t k = 0; k < p.k; k += stretch) {
    const std::int64_t end = std::min(p.k, k + stretch);
    const Way way = way_of(p, range, k, end - k);
    if (k > 0 && way != s.way) {
      body(s);
      s.begin = k;
    }
    s.way = way;
    s.end = end;
  }
  body(s);
}

// c of a's zeros, from one row; false where rows differ.
bool repeat_row(const Kernels& kernels, const ProductLanes<float>& p, const ProductRange& range,
                const ProductScratch<float>& scratch) {
  if (p.bias && (p.bias_row || p.continued)) return false;
  const std::int64_t columns = range.column_end - range.column_begin;
  const auto row = [&](std::int64_t i) { return p.c + i * p.n + range.column_begin; };
  const auto is_negative_zero = [](float x) { return ops::to_bits(x) == ops::sign_bit<float>; };
  const Part starts{row(range.row_begin), range.row_end - range.row_begin, p.n, columns, 1};
  if (p.continued && any_of(starts, is_negative_zero)) return false;  // which the terms' signs may change
  if (p.b_is_finite && !p.bias) {
    for (std::int64_t i = range.row_begin; !p.continued && i < range.row_end; ++i) std::fill_n(row(i), columns, 0.0f);
    return true;
  }
  std::vector<float> sums(static_cast<std::size_t>(columns));
  ProductLanes<float> first = p;
  first.a += range.row_begin * p.a_row;
  first.b += range.column_begin * p.b_column;
  if (p.bias) first.bias += range.column_begin;
  first.c = sums.data();
  first.n = columns;
  first.continued = false;
  kernels.product_float32(first, {0, 1, 0, columns}, scratch);
  if (p.continued && std::all_of(sums.begin(), sums.end(), [](float x) { return x == 0; })) return true;
  const auto sum = [](float term, float start) { return ops::canonical_nan(start + term); };
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i) {
    if (p.continued) {
      std::transform(sums.begin(), sums.end(), row(i), row(i), sum);
    } else {
      std::copy(sums.begin(), sums.end(), row(i));
    }
  }
  return true;
}

// A part as float64, in the order it lies.
struct Widened {
  const double* data;
  std::int64_t row, column;
};

Widened widen(const Kernels& kernels, const Part& part, double* lanes) {
  const Part x = lying(part);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* from = x.data + r * x.row;
    double* to = lanes + r * x.columns;
    if (x.column == 1) {
      kernels.widen_f64(formats::FormatId::float32, from, 0, x.columns, to);
    } else {
      for (std::int64_t c = 0; c < x.columns; ++c) to[c] = double{from[c * x.column]};
    }
  }
  return part.row < part.column ? Widened{lanes, 1, x.columns} : Widened{lanes, x.columns, 1};
}

// Blocks that take part of L2, each widened, multiplied and rounded back, which is exact.
class GradualBlocks {
 public:
  GradualBlocks(const Kernels& kernels, const ProductLanes<float>& p) : kernels_(kernels), p_(p) {
    thread_local base::Buffer buffer(static_cast<std::size_t>(2 * blocks.lanes() + 2 * block + padding) *
                                     sizeof(double));
    scratch_ = reinterpret_cast<double*>(buffer.data());
    a_ = scratch_ + blocks.lanes();
    b_ = a_ + blocks.rows * blocks.depth;
    c_ = b_ + blocks.depth * blocks.columns;
    bias_ = c_ + block;
  }

  void run(const ProductRange& range) const {
    for (std::int64_t j = range.column_begin; j < range.column_end; j += blocks.columns) {
      const std::int64_t columns = std::min(blocks.columns, range.column_end - j);
      for (std::int64_t i = range.row_begin; i < range.row_end; i += blocks.rows)
        multiply(i, std::min(blocks.rows, range.row_end - i), j, columns);
    }
  }

 private:
  static constexpr Blocking blocks = small_blocks;
  static constexpr std::int64_t block = blocks.rows * blocks.columns, padding = 64;

  void multiply(std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t columns) const {
    float* const c = p_.c + i * p_.n + j;
    if (p_.continued) widen(kernels_, {c, rows, p_.n, columns, 1}, c_);
    for (std::int64_t k = 0; k < p_.k; k += blocks.depth) {
      const std::int64_t depth = std::min(blocks.depth, p_.k - k);
      const Widened a = widen(kernels_, rows_of_a(p_, i, rows, k, depth), a_);
      const Widened b = widen(kernels_, columns_of_b(p_, k, depth, j, columns), b_);
      const double* bias = k + depth == p_.k ? bias_of(i, rows, j, columns) : nullptr;
      const std::int64_t bias_row = p_.bias_row ? columns : 0;
      kernels_.product_gradual(
          {a.data, a.row, a.column, b.data, b.row, b.column, bias, bias_row, c_, columns, depth, p_.continued || k > 0},
          {0, rows, 0, columns}, {blocks, scratch_});
    }
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t s = 0; s < columns; ++s) c[r * p_.n + s] = static_cast<float>(c_[r * columns + s]);
  }

  const double* bias_of(std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t columns) const {
    if (!p_.bias) return nullptr;
    const std::int64_t different = p_.bias_row ? rows : 1;
    return widen(kernels_, {p_.bias + i * p_.bias_row + j, different, std::max(p_.bias_row, columns), columns, 1},
                 bias_)
        .data;
  }

  const Kernels& kernels_;
  const ProductLanes<float>& p_;
  double *scratch_, *a_, *b_, *c_, *bias_;
};

// One part of the chain.
ProductLanes<float> part_of(const ProductLanes<float>& p, const Stretch& s) {
  ProductLanes<float> part = p;
  part.a += s.begin * p.a_step;
  part.b += s.begin * p.b_step;
  part.k = s.end - s.begin;
  part.continued = p.continued || s.begin > 0;
  if (s.end < p.k) part.bias = nullptr;
  return part;
}

}  // namespace

void product_in_stretches(const Kernels& kernels, const ProductLanes<float>& p, const ProductRange& range,
                          const ProductScratch<float>& scratch) {
  if (p.k == 0) return kernels.product_float32(p, range, scratch);
  for_stretches(p, range, [&](const Stretch& s) {
    const ProductLanes<float> part = part_of(p, s);
    if (s.way == Way::zeros && repeat_row(kernels, part, range, scratch)) return;
    if (s.way == Way::gradual) {
      GradualBlocks(kernels, part).run(range);
    } else {
      kernels.product_float32(part, range, scratch);
    }
  });
}

}  // namespace gradkern::cpu
