// Products: every executor against the reference loop, bit by bit; and the steps of that loop against exact integers.
#include "base/thread_pool.hpp"
#include "cpu/kernels.hpp"
#include "dense_case.hpp"

namespace gradkern {
namespace {

using test::Case;
using test::compare;
using test::expected;
using test::FormatId;
using test::Tensor;

// Values in the middle of the format's range, so that sums neither all overflow nor all vanish.
Case random_case(std::int64_t m, std::int64_t n, std::int64_t k, FormatId storage, FormatId operands,
                 FormatId accumulate, std::uint64_t seed, std::uint64_t special_period) {
  Case c{m, n, k, storage, operands, accumulate, (seed & 1) != 0, (seed & 2) != 0, {}, {}, {}, {}};
  const auto make = [&](FormatId format, std::int64_t size, std::uint64_t stream) {
    auto values = test::random_values(seed * 8 + stream, size, -6, 2);
    if (special_period) test::sprinkle(values, storage, seed * 8 + stream + 4, special_period);
    return test::tensor(format, values);
  };
  c.a = make(storage, m * k, 1);
  c.b = make(storage, k * n, 2);
  c.bias = seed & 4 ? make(storage, seed & 8 ? m * n : n, 3) : Tensor{storage, {}, {}};
  c.start = seed & 16 ? make(accumulate, m * n, 4) : Tensor{accumulate, {}, {}};
  return c;
}

constexpr FormatId accumulators[] = {FormatId::float64, FormatId::float32, FormatId::float16, FormatId::bfloat16};

// body(storage, operands, accumulate) for every combination there is.
template <class Body>
void for_arithmetics(Body body) {
  for (const FormatId accumulate : accumulators) {
    for (const FormatId storage : test::storage_formats) {
      body(storage, storage, accumulate);
      const bool wider = storage == FormatId::float64 || storage == FormatId::float32;
      if (wider) body(storage, FormatId::tfloat32, accumulate);
    }
  }
}

void ragged_sizes(const std::vector<executor::Executor>& executors) {
  for_arithmetics([&](FormatId storage, FormatId operands, FormatId accumulate) {
    for (std::int64_t n = 1; n <= 40; ++n) {
      const std::uint64_t seed = static_cast<std::uint64_t>(n);
      const std::int64_t m = (n * 7) % 40 + 1, k = (n * 11) % 40;  // k reaches 0
      const Case c = random_case(m, n, k, storage, operands, accumulate, seed, 0);
      const Case special = random_case(m, n, k, storage, operands, accumulate, seed + 40, 50);
      const auto truth = expected(c), special_truth = expected(special);
      for (const auto& e : executors) {
        compare(e, c, truth);
        compare(e, special, special_truth);
      }
    }
  });
}

// Several tiles in both directions, so that threads have something to share.
void thread_counts(const std::vector<executor::Executor>& executors) {
  for_arithmetics([&](FormatId storage, FormatId operands, FormatId accumulate) {
    const Case c = random_case(37, 291, 9, storage, operands, accumulate, 5, 0);
    const auto truth = expected(c);
    for (const int threads : {1, 2, 3, 7}) {
      base::set_num_threads(threads);
      for (const auto& e : executors) compare(e, c, truth);
    }
  });
}

// However it is cut. Rows of a and b lie so far apart that both are packed.
template <class T, class Kernel>
void blockings(const executor::Executor& e, FormatId format, Kernel kernel) {
  constexpr std::int64_t m = 75, n = 300, k = 131, apart = 1100;
  constexpr cpu::Blocking cuts[] = {{131, 384, 98}, {40, 128, 14}, {64, 256, 28}, {7, 128, 75}, cpu::small_blocks};
  for (const int transposes : {0, 1, 2, 3}) {
    const bool transpose_a = transposes & 1, transpose_b = transposes & 2;
    const auto a = test::random_values(31, m * apart, -6, 2), b = test::random_values(32, k * apart, -6, 2);
    const Tensor a_stored = test::tensor(format, a), b_stored = test::tensor(format, b);
    const cpu::ProductLanes<T> p{static_cast<const T*>(a_stored.data()),
                                 transpose_a ? 1 : apart,
                                 transpose_a ? m : 1,
                                 static_cast<const T*>(b_stored.data()),
                                 transpose_b ? 1 : apart,
                                 transpose_b ? k : 1,
                                 nullptr,
                                 0,
                                 nullptr,
                                 n,
                                 k,
                                 false};
    std::vector<double> a_used, b_used;
    for (std::int64_t i = 0; i < m * k; ++i)
      a_used.push_back(a_stored.values[static_cast<std::size_t>(i / k * p.a_row + i % k * p.a_step)]);
    for (std::int64_t i = 0; i < k * n; ++i)
      b_used.push_back(b_stored.values[static_cast<std::size_t>(i / n * p.b_step + i % n * p.b_column)]);
    const auto truth = formats::visit(format, [&](auto f) {
      if constexpr (std::is_same_v<typename decltype(f)::container, std::uint64_t> ||
                    decltype(f)::id == FormatId::float32)
        return ref::product<decltype(f)>(m, n, k, a_used, b_used, {}, format == FormatId::float64, {});
      return std::vector<double>();
    });
    for (const cpu::Blocking& cut : cuts) {
      std::vector<T> c(m * n, T(-7)), scratch(static_cast<std::size_t>(cut.lanes()));
      cpu::ProductLanes<T> here = p;
      here.c = c.data();
      kernel(here, {0, m, 0, n}, {cut, scratch.data()});
      for (std::size_t i = 0; i < c.size(); ++i)
        CHECK(test::same(double(c[i]), truth[i]), e.name, test::name_of(format), transposes, "depth", cut.depth,
              "columns", cut.columns, "rows", cut.rows, "at", i, "got", double(c[i]), "expected", truth[i]);
    }
  }
}

__extension__ typedef __int128 wide_int;

// units * 2^exponent rounded to odd in float64: the next rounding, to Acc, is then the only one.
double to_odd(wide_int units, int exponent) {
  const bool negative = units < 0;
  wide_int magnitude = negative ? -units : units;
  bool sticky = false;
  for (; magnitude >> 53; magnitude >>= 1, ++exponent) sticky = sticky || (magnitude & 1);
  const double value =
      std::ldexp(static_cast<double>(static_cast<std::int64_t>(magnitude) | (sticky ? 1 : 0)), exponent);
  return negative ? -value : value;
}

template <class F>
double nearest(double x) {
  return formats::decode<F>(formats::encode<F>(x, {}).bits);
}

// x w + a in integers, in units of 2^unit, a being a value of Acc.
template <class Acc>
double exact_fma(double x, double w, double a, int unit) {
  const int half = unit / 2;
  const auto integer = [](double v, int power) { return static_cast<wide_int>(std::ldexp(v, -power)); };
  const wide_int sum = integer(x, half) * integer(w, half) + integer(a, unit);
  const double result = sum == 0 ? x * w + a : nearest<Acc>(to_odd(sum, unit));
  return result;
}

template <class Acc>
void steps(const char* what, bool double_operands) {
  // Significands of 53 bits with exponent 0 (or short ones of any exponent), and sums that cancel or sit near a tie.
  const int unit = double_operands ? -104 : -60;
  for (std::uint64_t i = 0; i < 300000; ++i) {
    double x = test::random_double(21, i, double_operands ? 0 : -12, double_operands ? 0 : 6);
    double w = test::random_double(22, i, double_operands ? 0 : -12, double_operands ? 0 : 6);
    if (!double_operands || i % 4 == 1) x = nearest<Acc>(x), w = nearest<Acc>(w);
    if (double_operands && i % 4 == 2) x = nearest<Acc>(x) + (i & 8 ? 0x1p-52 : -0x1p-52), w = nearest<Acc>(w);
    double a = nearest<Acc>(test::random_double(23, i, double_operands ? -20 : -12, 12));
    if (i % 3 == 0) a = nearest<Acc>(-x * w);
    const double got = ref::step<Acc>(x, w, a, double_operands), truth = exact_fma<Acc>(x, w, a, unit);
    CHECK(test::same(got, truth), what, Acc::name, x, w, a, "got", got, "expected", truth);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  steps<formats::float16>("short operands", false);
  steps<formats::bfloat16>("short operands", false);
  steps<formats::float16>("float64 operands", true);
  steps<formats::bfloat16>("float64 operands", true);
  steps<formats::float32>("float64 operands", true);
  const auto executors = test::usable_executors();
  ragged_sizes(executors);
  thread_counts(executors);
  for (const auto& e : executors) {
    if (e.device) continue;
    const auto& kernels = *static_cast<const cpu::Kernels*>(e.kernels);
    blockings<float>(e, FormatId::float32, kernels.product_float32);
    blockings<double>(e, FormatId::float64, kernels.product_float64);
  }
  return test::report();
}
