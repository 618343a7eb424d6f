// Products: every executor against the reference loop, bit by bit; and the steps of that loop against exact integers.
#include "base/thread_pool.hpp"
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
  return test::report();
}
