// Statistics: counts and extrema exactly, sums within a bound, and the same bits on every executor and thread count.
#include <algorithm>
#include <atomic>
#include <list>
#include <memory>
#include <utility>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cpu/cpuid.hpp"
#include "cpu/kernels.hpp"
#include "ref/statistics.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;
using test::same;
using test::Tensor;

std::unique_ptr<ops::Statistics> measured(const executor::Executor& e, const Tensor& t) {
  auto s = ops::make_statistics();
  const executor::StatisticsArgs args{t.size(), t.format, t.data()};
  e.statistics(e, &args, 1, [&](std::int64_t, const ops::Statistics& done) { *s = done; });
  return s;
}

bool close(double got, long double truth, long double scale) {
  return std::fabs(got - truth) <= 1e-12L * std::fabs(scale);
}

double total(const ops::SquareSum& s) { return std::ldexp(s.big, 1200) + s.medium + std::ldexp(s.small, -1200); }

void against_truth(const Tensor& t, const ops::Statistics& s) {
  const double smallest_normal =
      formats::visit(t.format, [](auto f) { return formats::exp2i(formats::Layout<decltype(f)>::min_exponent); });
  const auto truth = ref::statistics(t.values, smallest_normal);
  const std::string name = test::name_of(t.format);
  CHECK(s.size == t.size(), name);
  CHECK(s.nan == truth.nan && s.pos_inf == truth.pos_inf && s.neg_inf == truth.neg_inf, name, t.size());
  CHECK(s.first_nonfinite == truth.first_nonfinite, name, t.size(), s.first_nonfinite, truth.first_nonfinite);
  CHECK(s.zero == truth.zero && s.negative == truth.negative && s.subnormal == truth.subnormal, name, t.size());
  CHECK(s.moments.finite == static_cast<double>(truth.finite), name, t.size());
  CHECK(s.amax == truth.amax && s.amin == truth.amin, name, t.size());
  for (int i = 0; i < ops::binade_count * ops::cell_count; ++i) {
    const int binade = ops::binade_min + i / ops::cell_count;
    const bool held = s.binades.first <= binade && binade < s.binades.last;
    const auto count = held ? s.binades.row(binade)[i % ops::cell_count] : 0;
    CHECK(count == truth.cells[static_cast<std::size_t>(i)], name, t.size(), binade, i % ops::cell_count, count);
  }
  if (t.format == FormatId::float64) return;  // its squares may leave the range of the truth, too
  const auto& m = s.moments;
  CHECK(close(m.l1, truth.l1, truth.l1), name, t.size(), m.l1);
  CHECK(close(m.mean, truth.mean, truth.finite ? truth.l1 / truth.finite : 0), name, t.size(), m.mean);
  CHECK(close(total(m.deviations), truth.m2, truth.m2), name, t.size(), total(m.deviations));
  CHECK(close(total(m.squares), truth.squares, truth.squares), name, t.size(), total(m.squares));
}

bool same(const ops::Statistics& a, const ops::Statistics& b) {
  bool equal = a.size == b.size && a.nan == b.nan && a.pos_inf == b.pos_inf && a.neg_inf == b.neg_inf &&
               a.zero == b.zero && a.negative == b.negative && a.subnormal == b.subnormal &&
               a.first_nonfinite == b.first_nonfinite && a.amax == b.amax && a.amin == b.amin;
  equal &= same(a.moments, b.moments);
  const auto count = [](const ops::Statistics& s, int binade, int cell) {
    return s.binades.first <= binade && binade < s.binades.last ? s.binades.row(binade)[cell] : 0;
  };
  for (int binade = ops::binade_min; binade < ops::binade_min + ops::binade_count; ++binade)
    for (int c = 0; c < ops::cell_count; ++c) equal &= count(a, binade, c) == count(b, binade, c);
  return equal;
}

// Block by block, entry by entry, as ops/statistics.hpp has it.
std::unique_ptr<ops::Statistics> by_definition(const Tensor& t) {
  auto s = ops::make_statistics();
  for (std::int64_t first = 0; first < t.size(); first += ops::statistics_chunk) {
    ops::Moments chunk;
    for (std::int64_t b = first; b < std::min(t.size(), first + ops::statistics_chunk); b += ops::statistics_block) {
      const auto value = [&](std::int64_t i) { return t.values[static_cast<std::size_t>(b + i)]; };
      ops::measure_block(*s, chunk, value, b, std::min(t.size() - b, ops::statistics_block));
    }
    s->moments.merge(chunk);
  }
  formats::visit(t.format, [&](auto f) { ops::count_subnormals(*s, formats::Layout<decltype(f)>::min_exponent); });
  return s;
}

// Also each with the statistics that it would not choose on this processor.
std::vector<executor::Executor> with_both_ways(std::vector<executor::Executor> executors) {
  static std::list<cpu::Kernels> tables;
  for (std::size_t i = 0, count = executors.size(); i < count; ++i) {
    if (executors[i].device) continue;
    cpu::Kernels& k = tables.emplace_back(*static_cast<const cpu::Kernels*>(executors[i].kernels));
    if (k.measure == k.measure_otherwise || !cpu::has_avx512_vnni()) continue;
    std::swap(k.measure, k.measure_otherwise);
    executors.push_back(executors[i]);
    executors.back().kernels = &k;
  }
  return executors;
}

void one(const std::vector<executor::Executor>& executors, const Tensor& t) {
  base::set_num_threads(1);
  const auto first = measured(executors.front(), t);
  against_truth(t, *first);
  const bool patterns =
      formats::visit(t.format, [&](auto f) { return ops::measured_by_pattern<decltype(f)>(t.size()); });
  if (!patterns) CHECK(same(*first, *by_definition(t)), test::name_of(t.format), t.size());
  for (const int threads : {1, 2, 3, 7}) {
    base::set_num_threads(threads);
    for (const auto& e : executors) {
      const auto again = measured(e, t);
      CHECK(same(*again, *first), e.name, test::name_of(t.format), t.size(), threads);
    }
  }
}

// Large tensors of bytes: any data, one value only, and the same bits in any order.
void by_pattern(const std::vector<executor::Executor>& executors, FormatId format, std::int64_t size) {
  auto values = test::random_values(64, size, -20, 7);
  one(executors, test::tensor(format, values));
  test::sprinkle(values, format, 65, 40);
  const Tensor t = test::tensor(format, values);
  one(executors, t);
  one(executors, test::tensor(format, std::vector<double>(values.size(), -1.75)));
  const bool patterns = formats::visit(format, [&](auto f) { return ops::measured_by_pattern<decltype(f)>(size); });
  CHECK(patterns == (size != (1 << 12) - 1), size);
  std::reverse(values.begin(), values.end());
  auto mirrored = measured(executors.front(), test::tensor(format, values)), s = measured(executors.front(), t);
  mirrored->first_nonfinite = s->first_nonfinite;
  if (patterns) CHECK(same(*mirrored, *s), test::name_of(format), size);
}

// Whole blocks of ordinary numbers, some of them with zeros, and cells and binades that blocks go on with or leave.
void ordinary_blocks(const std::vector<executor::Executor>& executors, FormatId format) {
  const auto size = 5 * ops::statistics_block + 77;
  const auto ordinary = test::random_values(71, size, -9, 0);
  const auto tensor_of = [&](auto value) {
    std::vector<double> values(ordinary);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(values[i], static_cast<std::int64_t>(i));
    one(executors, test::tensor(format, values));
  };
  constexpr std::int64_t block = ops::statistics_block;
  tensor_of([](double x, std::int64_t) { return x > 0 ? x : 0.0; });
  tensor_of([](double x, std::int64_t) { return x > 0 ? x : -0.0; });
  tensor_of([](double x, std::int64_t i) { return i / block % 2 == 0 && i % 3 == 0 ? 0.0 : x; });
  tensor_of([](double x, std::int64_t i) { return i == 3 * block - 1 ? -0.0 : x; });  // the only one
  tensor_of([](double, std::int64_t i) { return i % 2 == 0 ? -0.0 : 0.0; });
  tensor_of([](double x, std::int64_t) { return std::copysign(0.25, x); });  // powers of two alone
  tensor_of([](double x, std::int64_t) { return std::copysign(2 - 0x1p-11, x); });
  for (const std::int64_t few : {1, 8, 9, 100})  // at the end of a block of zeros
    tensor_of([&](double, std::int64_t i) { return i % block >= block - few ? 0.5 : 0.0; });
  for (const std::int64_t few : {8, 9})
    tensor_of([&](double x, std::int64_t i) { return i % block % 32 == 5 && i % block / 32 < few ? 0.5 : x; });
  tensor_of([](double x, std::int64_t i) { return std::ldexp(x, i / block % 2 == 0 ? 0 : -5); });
  for (const double odd : {HUGE_VAL, -HUGE_VAL, std::nan("")})  // a block that is given up when some of it was taken
    tensor_of([&](double x, std::int64_t i) { return i == block + 1500 ? odd : i % 50 == 0 ? 0.5 : x; });
  for (const double edge : {0.5, 1 - 0x1p-8, 1 - 0x1p-11, 0x1p-14, 0x1p-15, 0x1.8p-20, 0x1p-24})
    for (const std::int64_t every :
         {2048, 700, 64, 63, 33, 17, 1})  // from a few entries in other cells, or subnormal, to all
      tensor_of(
          [&](double x, std::int64_t i) { return i % every == 0 && i / block != 2 ? std::copysign(edge, x) : x; });
  if (format == FormatId::float16)  // from the upper exponents to the lower ones and back
    for (const int power : {14, 8, -4})
      for (const std::int64_t first : {0, 1})
        tensor_of([&](double x, std::int64_t i) { return std::ldexp(x, i / block % 2 == first ? 0 : power); });
  if (format == FormatId::float64 || format == FormatId::float32 || format == FormatId::bfloat16)
    for (const int power : {-17, 40, -100, -115, 100})
      tensor_of([&](double x, std::int64_t i) { return std::ldexp(x, i / block % 2 == 0 ? 0 : power); });
  if (format == FormatId::float16) return;
  for (const std::int64_t turn : {128, 256, 512, 1024})  // the lowest binades and the highest ones in one block
    for (const std::int64_t few : {1, 3})
      tensor_of([&](double x, std::int64_t i) {
        return std::copysign(std::ldexp(1.5, i / turn % (few + 1) < few ? -123 + int(i % 3) : 123), x);
      });
  for (const std::int64_t every : {9, 40, 300})  // stragglers below the window, more than are noted at a time
    tensor_of([&](double x, std::int64_t i) { return i % every == 0 ? std::ldexp(x, -30 - int(i % 7)) : x; });
}

// Formats of 16 bits may be summed as integers within windows of exponents: the largest sums that there are, and a few
// entries, or many, below a window, two of them, and what can be told from them.
void windows_of_exponents(const std::vector<executor::Executor>& executors, FormatId format) {
  constexpr std::int64_t block = ops::statistics_block, size = 3 * block;
  const bool half = format == FormatId::float16;
  const auto tensor_of = [&](auto value) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < size; ++i) values.push_back(value(i));
    one(executors, test::tensor(format, values));
  };
  const double largest = half ? 2 - 0x1p-10 : 2 - 0x1p-7;
  for (const int top : half ? std::vector{15, 14, 0, -14} : std::vector{127, 126, 0, -126}) {
    tensor_of([&](std::int64_t) { return std::ldexp(largest, top); });
    tensor_of([&](std::int64_t) { return std::ldexp(-largest, top); });
    tensor_of([&](std::int64_t i) { return std::ldexp(i % 3 ? largest : -largest, top); });
    for (const int span : {13, 14, 15, 16, 17, 28, 29, 30, 31, 32, 33, 34, 35})
      for (const std::int64_t every : {block - 1, std::int64_t(100), std::int64_t(9)})
        tensor_of([&](std::int64_t i) {
          return test::random_double(66, std::uint64_t(i), i % every == 40 % every ? top - span : top - 2,
                                     top - span * (i % every == 40 % every));
        });
    for (const int step : {1, 9, 16, 31, 40})  // from block to block, and one that is far larger
      tensor_of([&](std::int64_t i) {
        const int exponent = top - step * static_cast<int>(i < block ? 2 : i < 2 * block ? 1 : 0);
        return test::random_double(67, std::uint64_t(i), i == block + 7 ? top : exponent - 2,
                                   i == block + 7 ? top : exponent);
      });
  }
}

// Blocks with a few NaNs and infinities, with many, with nothing else; what is left being constant, zero, far from zero,
// beyond the range of squares, or subnormal.
void not_finite(const std::vector<executor::Executor>& executors, FormatId format) {
  constexpr std::int64_t block = ops::statistics_block, size = 2 * block + 77;
  const double tiny =
      formats::visit(format, [](auto f) { return formats::exp2i(formats::Layout<decltype(f)>::min_exponent); });
  const auto values_of = [&](double low, double high, std::int64_t i) {
    return low + (high - low) * test::uniform(68, static_cast<std::uint64_t>(i));
  };
  const double odd[] = {std::nan(""), HUGE_VAL, -HUGE_VAL, -std::nan("")};
  for (const std::int64_t every : {std::int64_t(1), std::int64_t(2), std::int64_t(40), block - 3, size})
    for (const int kind : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}) {
      std::vector<double> values;
      for (std::int64_t i = 0; i < size; ++i) {
        const auto k = static_cast<std::size_t>(i / every);
        const double finite[] = {values_of(-1, 1, i),
                                 values_of(200, 201, i),
                                 0.375,
                                 i % 3 ? 0.0 : -0.0,
                                 i % 3 ? 0.0 : 1.0,
                                 values_of(-4, 4, i) * tiny,
                                 -0.5,
                                 format == FormatId::float64 ? values_of(-1e200, 1e200, i) : 1.0,
                                 i % 500 ? 1.0 : 0.0,
                                 std::ldexp(tiny, -static_cast<int>(i % 6)),
                                 format == FormatId::float64 ? values_of(1e200, 1.001e200, i) : 1.5,
                                 format == FormatId::float64 ? values_of(1e-200, 1.001e-200, i) : -2.0,
                                 i % 7 ? std::ldexp(i % 2 ? 1.0 : -1.0, format == FormatId::float16 ? 15 : 127) : 0.0};
        values.push_back(i % every == 0 && (kind != 6 || i > block)
                             ? odd[kind < 4 ? static_cast<std::size_t>(kind) : k % 4]
                             : finite[kind]);
      }
      one(executors, test::tensor(format, values));
    }
}

// More entries than the counters of a histogram hold, and tensors that are cut between chunks beside those that are not.
void pieces(const std::vector<executor::Executor>& executors, FormatId format) {
  constexpr std::int64_t from = 32 * ops::statistics_chunk;
  for (const std::int64_t size : {from - 1, from + 3 * ops::statistics_block + 5})
    one(executors, test::tensor(format, test::random_values(72, size, -9, 0)));
}

// Many tensors in one call, cut wherever threads share them, have the statistics that each has by itself.
void many(const std::vector<executor::Executor>& executors) {
  std::vector<Tensor> tensors;
  for (std::uint64_t i = 0; i < 40; ++i) {
    const FormatId format = test::all_formats[i % 7];
    const std::int64_t sizes[] = {0, 1, 1000, 2048, 2049, 5000, 50000, 150001};
    auto values = test::random_values(100 + i, sizes[i * i % 8], -20, 12);
    test::sprinkle(values, format, 200 + i, 300);
    tensors.push_back(test::tensor(format, values));
  }
  std::vector<executor::StatisticsArgs> args;
  std::vector<std::unique_ptr<ops::Statistics>> alone;
  for (const Tensor& t : tensors) {
    args.push_back({t.size(), t.format, t.data()});
    alone.push_back(measured(executors.front(), t));
  }
  for (const int threads : {1, 2, 3, 7}) {
    base::set_num_threads(threads);
    for (const auto& e : executors) {
      std::vector<std::atomic<int>> calls(tensors.size());
      e.statistics(e, args.data(), static_cast<std::int64_t>(args.size()),
                   [&](std::int64_t i, const ops::Statistics& s) {
                     const auto k = static_cast<std::size_t>(i);
                     ++calls[k];
                     if (!same(s, *alone[k])) calls[k] += 100;
                   });
      for (std::size_t i = 0; i < tensors.size(); ++i)
        CHECK(calls[i] == 1, e.name, threads, test::name_of(tensors[i].format), tensors[i].size(), calls[i].load());
    }
  }
}

// Squares beyond the range of float64, both ways, against long double, whose exponents reach far enough.
void extreme_squares(const executor::Executor& e, int exponent) {
  auto values = test::random_values(63, 5000, exponent - 40, exponent);
  const Tensor t = test::tensor(FormatId::float64, values);
  const auto s = measured(e, t);
  const auto truth = ref::statistics(t.values, 0x1p-1022);
  const auto sum = [](const ops::SquareSum& q) {
    return std::ldexp(static_cast<long double>(q.big), 1200) + q.medium +
           std::ldexp(static_cast<long double>(q.small), -1200);
  };
  const auto near = [](long double got, long double want) { return std::fabs(got - want) <= 1e-12L * std::fabs(want); };
  CHECK(near(sum(s->moments.squares), truth.squares), e.name, exponent);
  CHECK(near(sum(s->moments.deviations), truth.m2), e.name, exponent);
  CHECK(near(s->moments.l1, truth.l1) || !(truth.l1 < 1.7e308L), e.name, exponent, s->moments.l1);
  CHECK(std::fabs(s->moments.mean - truth.mean) <= 1e-12L * truth.l1 / truth.finite + 0x1p-1074L, e.name, exponent);
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const auto executors = with_both_ways(test::usable_executors());
  for (const FormatId format : test::all_formats) {
    for (const std::int64_t size : {0, 1, 15, 16, 17, 16383, 16384, 16385, 49159}) {
      auto values = test::random_values(61, size, -20, 12);
      one(executors, test::tensor(format, values));
      test::sprinkle(values, format, 62, 40);
      one(executors, test::tensor(format, values));
      for (double& x : values) x = 1000 + x;  // far from zero: moments that cancel in one pass
      one(executors, test::tensor(format, values));
    }
  }
  for (const FormatId format : {FormatId::float8_e4m3fn, FormatId::float8_e5m2})
    for (const std::int64_t size : {(1 << 12) - 1, 1 << 12, (1 << 12) + 70001}) by_pattern(executors, format, size);
  for (const FormatId format : test::all_formats) ordinary_blocks(executors, format);
  for (const FormatId format : {FormatId::float16, FormatId::bfloat16, FormatId::float32}) pieces(executors, format);
  for (const FormatId format : {FormatId::float16, FormatId::bfloat16}) windows_of_exponents(executors, format);
  for (const FormatId format : test::all_formats) not_finite(executors, format);
  many(executors);
  for (const auto& e : executors)
    for (const int exponent : {1023, 700, 505, 480, -350, -390, -410, -480, -700, -1000, -1033})
      extreme_squares(e, exponent);
  return test::report();
}
