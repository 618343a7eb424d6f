#include "cpu/product.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "cpu/blocking.hpp"
#include "cpu/cpuid.hpp"
#include "cpu/mma.hpp"
#include "cpu/stretches.hpp"
#include "formats/decode.hpp"
#include "mma/cpu_units.hpp"
#include "ops/dense.hpp"
#include "simd/truncation.hpp"

namespace gradkern::cpu {
namespace {

using executor::ProductArgs;
using formats::FormatId;

constexpr std::int64_t widen_chunk = 16384;
constexpr std::int64_t worth_threads = 32768;  // multiply-adds
constexpr std::int64_t rows_worth_packing = 128;

// Columns: whole panels on every instruction set.
template <class T>
constexpr std::int64_t column_grain = 128 / static_cast<std::int64_t>(sizeof(T));

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

template <class T>
ProductScratch<T> scratch() {
  const Blocking blocking = product_blocking();
  thread_local base::Buffer buffer(static_cast<std::size_t>(blocking.lanes()) * sizeof(T));
  return {blocking, reinterpret_cast<T*>(buffer.data())};
}

// Of so many bytes, for the one kernel that has so many.
template <std::int64_t bytes>
char* scratch_of_unit() {
  thread_local base::Buffer buffer(static_cast<std::size_t>(bytes));
  return reinterpret_cast<char*>(buffer.data());
}

// The kernel of this processor's own instruction for a unit of bfloat16, or null.
BfloatKernel bfloat_kernel(const Kernels& kernels, mma::Form form) {
#if defined(GRADKERN_HAS_BFLOAT16_KERNELS)
  if (kernels.vector_bytes < 64) return nullptr;
  if (form == mma::Form::amx && has_amx_bf16()) return amx_product;
  if (form == mma::Form::pairs && has_avx512_bf16()) return avx512_bf16_product;
#else
  static_cast<void>(kernels);
  static_cast<void>(form);
#endif
  return nullptr;
}

bool asks_for_software() {
  const char* wish = std::getenv("GRADKERN_UNITS");
  return wish && std::strcmp(wish, "software") == 0;
}

template <class T>
using Kernel = void (*)(const ProductLanes<T>&, const ProductRange&, const ProductScratch<T>&);

// float64 operands with a narrower accumulator: the exact, slow route.
template <class Acc>
void exact_range(const ProductLanes<double>& p, const ProductRange& range, const ProductScratch<double>&) {
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i) {
    for (std::int64_t j = range.column_begin; j < range.column_end; ++j) {
      double sum = p.continued ? p.c[i * p.n + j] : 0;
      for (std::int64_t k = 0; k < p.k; ++k) {
        sum = ops::exact_step<Acc>(p.a[i * p.a_row + k * p.a_step], p.b[k * p.b_step + j * p.b_column], sum);
      }
      p.c[i * p.n + j] = ops::canonical_nan(p.bias ? ops::exact_step<Acc>(1.0, p.bias[i * p.bias_row + j], sum) : sum);
    }
  }
}

// Products that do not need one another, in one region of the threads; one by one as they are added where there is but
// one thread.
class Batch {
 public:
  explicit Batch(const Kernels& kernels)
      : kernels_(kernels), threads_(base::in_parallel_region() ? 1 : base::num_threads()) {}

  void add(const ProductArgs& args) {
    if (args.unit) return add_unit(args);
    const bool double_operands = args.operands == FormatId::float64;
    switch (args.accumulate) {
      case FormatId::float64:
        return add<double>(args, static_cast<double*>(args.wide), kernels_.product_float64);
      case FormatId::float32:
        if (double_operands) return add_narrow(args, exact_range<formats::float32>);
        return add<float>(
            args, static_cast<float*>(args.wide),
            [this](const ProductLanes<float>& p, const ProductRange& range, const ProductScratch<float>& scratch) {
              product_in_stretches(kernels_, p, range, scratch);
            });
      case FormatId::float16:
        if (kernels_.product_half && is_half(args)) return add_half(args);
        return add_narrow(args, double_operands ? exact_range<formats::float16> : kernels_.product_float16);
      case FormatId::bfloat16:
        return add_narrow(args, double_operands ? exact_range<formats::bfloat16> : kernels_.product_bfloat16);
      default:
        base::expects(false, "product: accumulate must be float64, float32, float16 or bfloat16");
    }
  }

  void run() {
    if (work_ < worth_threads) {
      for (const auto& task : tasks_) task();
    } else {
      base::parallel_for(static_cast<std::int64_t>(tasks_.size()),
                         [&](std::int64_t t) { tasks_[static_cast<std::size_t>(t)](); });
    }
    for (const auto& [c, args] : narrow_)
      std::copy_n(reinterpret_cast<const double*>(c.data()), args.m * args.n, static_cast<float*>(args.wide));
    for (const auto& [c, args] : halves_)
      kernels_.widen_f32(FormatId::float16, c.data(), 0, args.m * args.n, static_cast<float*>(args.wide));
  }

 private:
  // An operand as lanes, in the order it lies in memory: itself where it is of the lane type, else widened, once.
  template <class T>
  const T* lanes_of(const void* data, FormatId format, std::int64_t size, FormatId operands) {
    const bool rounded = is_rounded(format, operands);
    if (!data || (!rounded && format == lane_format<T>)) return static_cast<const T*>(data);
    for (const Widened& w : widened_)
      if (w.data == data && w.format == format && w.rounded == rounded && w.lanes.size() == bytes<T>(size))
        return reinterpret_cast<const T*>(w.lanes.data());
    widened_.push_back({data, format, rounded, {}});
    base::Buffer& buffer = widened_.back().lanes;
    buffer.resize(bytes<T>(size));
    T* const lanes = reinterpret_cast<T*>(buffer.data());
    base::parallel_for(base::chunk_count(size, widen_chunk), [&](std::int64_t c) {
      const std::int64_t begin = c * widen_chunk, end = std::min(size, begin + widen_chunk);
      if (rounded) return to_tfloat32(format, data, begin, end, lanes);
      if constexpr (sizeof(T) == 4) {
        kernels_.widen_f32(format, data, begin, end, lanes + begin);
      } else {
        kernels_.widen_f64(format, data, begin, end, lanes + begin);
      }
    });
    return lanes;
  }

  template <class T>
  const T* bias_of(const ProductArgs& args) {
    return lanes_of<T>(args.bias, args.bias_format, args.bias_row ? args.m * args.n : args.n, args.bias_format);
  }

  template <class T, class Body>
  void add(const ProductArgs& args, T* c, Body kernel) {
    if (args.m == 0 || args.n == 0) return;
    const T* a = lanes_of<T>(args.a.data, args.a.format, args.m * args.k, args.operands);
    const T* b = lanes_of<T>(args.b.data, args.b.format, args.k * args.n, args.operands);
    share<T>(args.m, lanes_of_product(args, a, b, bias_of<T>(args), c), kernel);
  }

  // Through float64 lanes, which hold the accumulator exactly, to the result, which does too.
  void add_narrow(const ProductArgs& args, Kernel<double> kernel) {
    narrow_.push_back({{}, args});
    base::Buffer& c = narrow_.back().first;
    c.resize(bytes<double>(args.m * args.n));
    if (args.continued)
      std::copy_n(static_cast<const float*>(args.wide), args.m * args.n, reinterpret_cast<double*>(c.data()));
    add<double>(args, reinterpret_cast<double*>(c.data()), kernel);
  }

  void add_unit(const ProductArgs& args) {
    const mma::Instruction instruction = unit_instruction(args);
    const bool software = asks_for_software();
    if (instruction.form == mma::Form::fused_half) {  // the fma chain by another name
      ProductArgs chain = args;
      chain.unit = 0;
      return software ? add_narrow(chain, kernels_.product_float16) : add(chain);
    }
    if (args.m == 0 || args.n == 0) return;
    const BfloatKernel kernel = software ? nullptr : bfloat_kernel(kernels_, instruction.form);
    if (kernel && args.k > 0 && args.a.format == FormatId::bfloat16 && args.b.format == FormatId::bfloat16)
      return add_bfloat(args, instruction, kernel);
    const float* a = lanes_of<float>(args.a.data, args.a.format, args.m * args.k, args.operands);
    const float* b = lanes_of<float>(args.b.data, args.b.format, args.k * args.n, args.operands);
    const UnitPlan& plan = units_.emplace_back(args, a, b, bias_of<float>(args));
    share<float>(args.m, args.n, args.k, [this, &plan](const ProductRange& range) {
      plan.run(kernels_, range, scratch_of_unit<mma_scratch>());
    });
  }

  // bfloat16 as it lies, by the processor's own instruction.
  void add_bfloat(const ProductArgs& args, const mma::Instruction& instruction, BfloatKernel kernel) {
    const auto bits = [](const void* data) { return static_cast<const std::uint16_t*>(data); };
    const BfloatProduct p{bits(args.a.data),
                          args.a.row_stride,
                          args.a.column_stride,
                          bits(args.b.data),
                          args.b.row_stride,
                          args.b.column_stride,
                          bias_of<float>(args),
                          args.bias_row,
                          static_cast<float*>(args.wide),
                          args.n,
                          args.k,
                          args.continued != nullptr};
    share<float>(args.m, args.n, args.k, [=](const ProductRange& range) {
      const simd::NearestEven guard;
      in_blocks(p, instruction,
                [&](const BfloatProduct& block) { kernel(block, range, scratch_of_unit<bfloat_scratch>()); });
    });
  }

  static bool is_half(const ProductArgs& args) {
    const auto half = [&](FormatId f) { return f == FormatId::float16; };
    return half(args.a.format) && half(args.b.format) && half(args.operands) && (!args.bias || half(args.bias_format));
  }

  // float16 throughout, as the processor multiplies it.
  void add_half(const ProductArgs& args) {
    if (args.m == 0 || args.n == 0) return;
    halves_.push_back({{}, args});
    base::Buffer& c = halves_.back().first;
    c.resize(bytes<std::uint16_t>(args.m * args.n));
    if (args.continued) {
      ops::RoundingCounts exact;
      kernels_.convert({args.m * args.n, FormatId::float32, FormatId::float16, args.wide, c.data(), 1, {}, 0, nullptr},
                       0, args.m * args.n, exact);
    }
    const auto bits = [](const void* data) { return static_cast<const std::uint16_t*>(data); };
    share<std::uint16_t>(args.m,
                         lanes_of_product(args, bits(args.a.data), bits(args.b.data), bits(args.bias),
                                          reinterpret_cast<std::uint16_t*>(c.data())),
                         kernels_.product_half);
  }

  template <class T>
  static ProductLanes<T> lanes_of_product(const ProductArgs& args, const T* a, const T* b, const T* bias, T* c) {
    ProductLanes<T> p{a,
                      args.a.row_stride,
                      args.a.column_stride,
                      b,
                      args.b.row_stride,
                      args.b.column_stride,
                      bias,
                      args.bias_row,
                      c,
                      args.n,
                      args.k,
                      args.continued != nullptr,
                      args.b_is_finite && !is_rounded(args.b.format, args.operands)};
    if (args.k == 0) {  // operands without entries: something to point at, and nowhere to go from it
      p.a = p.b = scratch<T>().lanes;
      p.a_row = p.a_step = p.b_step = p.b_column = 0;
    }
    return p;
  }

  template <class T, class Body>
  void share(std::int64_t m, const ProductLanes<T>& p, Body kernel) {
    share<T>(m, p.n, p.k, [=](const ProductRange& range) { kernel(p, range, scratch<T>()); });
  }

  // Ranges of columns for each thread, each of which then packs its own of b. Ranges of rows where there are too few
  // columns, or so many rows that packing all of b is little beside them: their results lie together, for whoever reads
  // them next.
  template <class T, class Body>
  void share(std::int64_t m, std::int64_t n, std::int64_t k, Body body) {
    if (threads_ == 1) return body(ProductRange{0, m, 0, n});
    work_ += m * n * k;
    const std::int64_t threads = m * n * k < worth_threads ? 1 : threads_;
    const std::int64_t grains = base::chunk_count(n, column_grain<T>);
    const bool by_column = grains >= threads && m < rows_worth_packing * threads;
    const std::int64_t parts = std::min(threads, by_column ? grains : m);
    for (std::int64_t t = 0; t < parts; ++t) {
      const auto cut = [&](std::int64_t count, std::int64_t part) { return count * part / parts; };
      const ProductRange range = by_column ? ProductRange{0, m, cut(grains, t) * column_grain<T>,
                                                          std::min(n, cut(grains, t + 1) * column_grain<T>)}
                                           : ProductRange{cut(m, t), cut(m, t + 1), 0, n};
      tasks_.push_back([=] { body(range); });
    }
  }

  template <class T>
  static std::size_t bytes(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(T);
  }

  struct Widened {
    const void* data;
    FormatId format;
    bool rounded;
    base::Buffer lanes;
  };

  const Kernels& kernels_;
  const std::int64_t threads_;
  std::list<Widened> widened_;
  std::list<UnitPlan> units_;
  std::list<std::pair<base::Buffer, ProductArgs>> narrow_, halves_;
  std::vector<std::function<void()>> tasks_;
  std::int64_t work_ = 0;  // multiply-adds of all
};

}  // namespace

bool has_own_instruction(const Kernels& kernels, mma::Form form) {
  return form == mma::Form::fused_half ? kernels.product_half != nullptr : bfloat_kernel(kernels, form) != nullptr;
}

void packed_products(const Kernels& kernels, const ProductArgs* products, std::int64_t count) {
  Batch batch(kernels);
  for (std::int64_t i = 0; i < count; ++i) batch.add(products[i]);
  batch.run();
}

}  // namespace gradkern::cpu
