#include "cpu/product.hpp"

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "formats/decode.hpp"
#include "ops/dense.hpp"

namespace gradkern::cpu {
namespace {

using executor::Operand;
using executor::ProductArgs;
using formats::FormatId;

constexpr std::int64_t widen_chunk = 16384;
constexpr std::int64_t worth_threads = 32768;  // multiply-adds
constexpr std::int64_t column_grain = 32;      // whole panels on every instruction set

template <class T>
constexpr FormatId lane_format = sizeof(T) == 4 ? FormatId::float32 : FormatId::float64;

// Whether a stored operand changes on its way into the product.
bool is_rounded(FormatId format, FormatId operands) {
  return operands == FormatId::tfloat32 && format != FormatId::tfloat32;
}

template <class T>
void to_tfloat32(FormatId format, const void* data, std::int64_t begin, std::int64_t end, T* lanes) {
  formats::visit(format, [&](auto f) {
    using F = decltype(f);
    const auto* stored = static_cast<const typename F::container*>(data);
    for (std::int64_t i = begin; i < end; ++i)
      lanes[i] = static_cast<T>(ops::round_to_nearest_even<formats::tfloat32>(formats::decode<F>(stored[i])));
  });
}

// An operand as lanes, in the order it lies in memory: itself where it is of the lane type.
template <class T>
class OperandLanes {
 public:
  OperandLanes(const Kernels& kernels, const void* data, FormatId format, std::int64_t size, FormatId operands) {
    const bool rounded = is_rounded(format, operands);
    if (!rounded && format == lane_format<T>) {
      data_ = static_cast<const T*>(data);
      return;
    }
    lanes_.resize(static_cast<std::size_t>(size) * sizeof(T));
    T* const lanes = reinterpret_cast<T*>(lanes_.data());
    data_ = lanes;
    base::parallel_for(base::chunk_count(size, widen_chunk), [&](std::int64_t c) {
      const std::int64_t begin = c * widen_chunk, end = std::min(size, begin + widen_chunk);
      if (rounded) return to_tfloat32(format, data, begin, end, lanes);
      if constexpr (sizeof(T) == 4) {
        kernels.widen_f32(format, data, begin, end, lanes);
      } else {
        kernels.widen_f64(format, data, begin, end, lanes);
      }
    });
  }
  const T* data() const { return data_; }

 private:
  base::Buffer lanes_;
  const T* data_;
};

template <class T>
T* scratch() {
  thread_local std::vector<T> buffer(static_cast<std::size_t>(product_scratch));
  return buffer.data();
}

template <class T>
using Kernel = void (*)(const ProductLanes<T>&, const ProductRange&, T*);

// Deals ranges of columns to threads, or ranges of rows where there are too few columns.
template <class T>
void share(std::int64_t m, const ProductLanes<T>& p, Kernel<T> kernel) {
  const std::int64_t threads = m * p.n * p.k < worth_threads ? 1 : base::num_threads();
  const std::int64_t grains = base::chunk_count(p.n, column_grain);
  const bool by_column = grains >= threads;
  const std::int64_t parts = std::min(threads, by_column ? grains : m);
  base::parallel_for(parts, [&](std::int64_t t) {
    const auto cut = [&](std::int64_t count, std::int64_t part) { return count * part / parts; };
    if (by_column) {
      kernel(p, {0, m, cut(grains, t) * column_grain, std::min(p.n, cut(grains, t + 1) * column_grain)}, scratch<T>());
    } else {
      kernel(p, {cut(m, t), cut(m, t + 1), 0, p.n}, scratch<T>());
    }
  });
}

template <class T>
void run(const Kernels& kernels, const ProductArgs& args, T* c, Kernel<T> kernel) {
  if (args.m == 0 || args.n == 0) return;
  const OperandLanes<T> a(kernels, args.a.data, args.a.format, args.m * args.k, args.operands),
      b(kernels, args.b.data, args.b.format, args.k * args.n, args.operands),
      bias(kernels, args.bias, args.bias_format, args.bias ? args.n : 0, args.bias_format);
  share<T>(args.m,
           {a.data(), args.a.row_stride, args.a.column_stride, b.data(), args.b.row_stride, args.b.column_stride,
            args.bias ? bias.data() : nullptr, c, args.n, args.k},
           kernel);
}

// Through float64 lanes, which hold the accumulator exactly, to the result, which does too.
void run_narrow(const Kernels& kernels, const ProductArgs& args, Kernel<double> kernel) {
  std::vector<double> c(static_cast<std::size_t>(args.m * args.n));
  run<double>(kernels, args, c.data(), kernel);
  std::copy(c.begin(), c.end(), static_cast<float*>(args.wide));
}

// float64 operands with a narrower accumulator: the exact, slow route.
template <class Acc>
void exact_range(const ProductLanes<double>& p, const ProductRange& range, double*) {
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i) {
    for (std::int64_t j = range.column_begin; j < range.column_end; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < p.k; ++k) {
        sum = ops::exact_step<Acc>(p.a[i * p.a_row + k * p.a_step], p.b[k * p.b_step + j * p.b_column], sum);
      }
      p.c[i * p.n + j] = ops::canonical_nan(p.bias ? ops::exact_step<Acc>(1.0, p.bias[j], sum) : sum);
    }
  }
}

}  // namespace

void packed_product(const Kernels& kernels, const ProductArgs& args) {
  const bool double_operands = args.operands == FormatId::float64;
  switch (args.accumulate) {
    case FormatId::float64:
      return run<double>(kernels, args, static_cast<double*>(args.wide), kernels.product_float64);
    case FormatId::float32:
      if (double_operands) return run_narrow(kernels, args, exact_range<formats::float32>);
      return run<float>(kernels, args, static_cast<float*>(args.wide), kernels.product_float32);
    case FormatId::float16:
      return run_narrow(kernels, args, double_operands ? exact_range<formats::float16> : kernels.product_float16);
    case FormatId::bfloat16:
      return run_narrow(kernels, args, double_operands ? exact_range<formats::bfloat16> : kernels.product_bfloat16);
    default:
      base::expects(false, "product: accumulate must be float64, float32, float16 or bfloat16");
  }
}

}  // namespace gradkern::cpu
