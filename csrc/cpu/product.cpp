#include "cpu/product.hpp"

#include <algorithm>
#include <vector>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "formats/decode.hpp"
#include "ops/dense.hpp"

namespace gradkern::cpu {
namespace {

using executor::Operand;
using executor::ProductArgs;
using formats::FormatId;

constexpr std::int64_t row_block = 16, column_block = 256;
static_assert(column_block % column_padding == 0);

double to_tfloat32(double value) { return ops::round_to_nearest_even<formats::tfloat32>(value); }

// (rows, columns) of an operand as lanes, rounded to the product's operand format, each row padded with zeros.
template <class T>
std::vector<T> pack(const Operand& operand, std::int64_t rows, std::int64_t columns, std::int64_t padded,
                    FormatId operands) {
  std::vector<T> lanes(static_cast<std::size_t>(std::max<std::int64_t>(rows, 1) * padded));  // k = 0: a row to point at
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, padded));
  formats::visit(operand.format, [&](auto format) {
    using F = decltype(format);
    const auto* data = static_cast<const typename F::container*>(operand.data);
    const bool rounds = operands == FormatId::tfloat32 && F::id != FormatId::tfloat32;
    base::parallel_for(base::chunk_count(rows, block), [&](std::int64_t c) {
      for (std::int64_t i = c * block; i < std::min(rows, (c + 1) * block); ++i) {
        T* row = lanes.data() + i * padded;
        for (std::int64_t j = 0; j < columns; ++j) {
          const double value = formats::decode<F>(data[i * operand.row_stride + j * operand.column_stride]);
          row[j] = static_cast<T>(rounds ? to_tfloat32(value) : value);
        }
      }
    });
  });
  return lanes;
}

template <class T>
void run_tiles(const ProductArgs& args, void (*kernel)(const Panel<T>&)) {
  const std::int64_t padded = base::chunk_count(args.n, column_padding) * column_padding;
  const auto a = pack<T>(args.a, args.m, args.k, args.k, args.operands);
  const auto b = pack<T>(args.b, args.k, args.n, padded, args.operands);
  std::vector<T> bias;
  if (args.bias) bias = pack<T>({args.bias_format, args.bias, args.n, 1}, 1, args.n, padded, args.bias_format);
  const std::int64_t row_blocks = base::chunk_count(args.m, row_block);
  const std::int64_t column_blocks = base::chunk_count(args.n, column_block);
  base::parallel_for(row_blocks * column_blocks, [&](std::int64_t tile) {
    const std::int64_t row = tile % row_blocks * row_block, column = tile / row_blocks * column_block;
    kernel({a.data(), b.data(), args.bias ? bias.data() : nullptr, args.wide, args.k, args.n, padded, row,
            std::min(args.m, row + row_block), column, std::min(args.n, column + column_block)});
  });
}

// float64 operands with a narrower accumulator: the exact, slow route.
template <class Acc>
void exact_panel(const Panel<double>& p) {
  for (std::int64_t i = p.row_begin; i < p.row_end; ++i) {
    for (std::int64_t j = p.column_begin; j < p.column_end; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < p.k; ++k) {
        sum = ops::exact_step<Acc>(p.a[i * p.k + k], p.b[k * p.padded + j], sum);
      }
      p.wide[i * p.n + j] = ops::canonical_nan(p.bias ? ops::exact_step<Acc>(1.0, p.bias[j], sum) : sum);
    }
  }
}

}  // namespace

void packed_product(const Kernels& kernels, const ProductArgs& args) {
  const bool double_operands = args.operands == FormatId::float64;
  switch (args.accumulate) {
    case FormatId::float64:
      return run_tiles<double>(args, kernels.product_float64);
    case FormatId::float32:
      if (double_operands) return run_tiles<double>(args, exact_panel<formats::float32>);
      return run_tiles<float>(args, kernels.product_float32);
    case FormatId::float16:
      return run_tiles<double>(args, double_operands ? exact_panel<formats::float16> : kernels.product_float16);
    case FormatId::bfloat16:
      return run_tiles<double>(args, double_operands ? exact_panel<formats::bfloat16> : kernels.product_bfloat16);
    default:
      base::expects(false, "product: accumulate must be float64, float32, float16 or bfloat16");
  }
}

}  // namespace gradkern::cpu
