// Statistics: counts and extrema exactly, sums within a bound, and the same bits on every executor and thread count.
#include <array>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "ref/statistics.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;
using test::Tensor;

ops::Statistics measured(const executor::Executor& e, const Tensor& t) {
  ops::Statistics s;
  e.statistics(e, {t.size(), t.format, t.data(), &s});
  return s;
}

bool close(double got, long double truth, long double scale) {
  return std::fabs(got - truth) <= 1e-12L * std::fabs(scale);
}

void against_truth(const Tensor& t, const ops::Statistics& s) {
  const double smallest_normal =
      formats::visit(t.format, [](auto f) { return formats::exp2i(formats::Layout<decltype(f)>::min_exponent); });
  const auto truth = ref::statistics(t.values, smallest_normal);
  const std::string name = test::name_of(t.format);
  CHECK(s.size == t.size(), name);
  CHECK(s.nan == truth.nan && s.pos_inf == truth.pos_inf && s.neg_inf == truth.neg_inf, name, t.size());
  CHECK(s.first_nonfinite == truth.first_nonfinite, name, t.size(), s.first_nonfinite, truth.first_nonfinite);
  CHECK(s.zero == truth.zero && s.negative == truth.negative && s.subnormal == truth.subnormal, name, t.size());
  CHECK(s.finite_count == static_cast<double>(truth.finite), name, t.size());
  CHECK(s.amax == truth.amax && s.amin == truth.amin, name, t.size());
  for (int b = 0; b < ops::binade_count; ++b) {
    const auto i = static_cast<std::size_t>(b);
    CHECK(s.binades[b] == truth.binades[i] && s.powers[b] == truth.powers[i], name, b + ops::binade_min);
  }
  if (t.format == FormatId::float64) return;  // its squares may leave the range of the truth, too
  CHECK(close(s.l1, truth.l1, truth.l1), name, t.size(), s.l1);
  CHECK(close(s.mean, truth.mean, truth.finite ? truth.l1 / truth.finite : 0), name, t.size(), s.mean);
  CHECK(close(s.m2, truth.m2, truth.squares), name, t.size(), s.m2);
  const long double squares = std::ldexp(static_cast<long double>(s.squares.big), 1200) + s.squares.medium +
                              std::ldexp(static_cast<long double>(s.squares.small), -1200);
  CHECK(close(static_cast<double>(squares), truth.squares, truth.squares), name, t.size());
}

bool same(const ops::Statistics& a, const ops::Statistics& b) {
  return std::bit_cast<std::array<unsigned char, sizeof a>>(a) == std::bit_cast<std::array<unsigned char, sizeof b>>(b);
}

void one(const std::vector<executor::Executor>& executors, const Tensor& t) {
  base::set_num_threads(1);
  const auto first = measured(executors.front(), t);
  against_truth(t, first);
  for (const int threads : {1, 2, 3, 7}) {
    base::set_num_threads(threads);
    for (const auto& e : executors) {
      const auto again = measured(e, t);
      CHECK(same(again, first), e.name, test::name_of(t.format), t.size(), threads);
    }
  }
}

// Squares beyond the range of float64, both ways: 2^600 and 2^-600 are kept apart and lose nothing.
void extreme_squares(const executor::Executor& e) {
  const Tensor t = test::tensor(FormatId::float64, {0x1p600, 0x1p600, 0x1p-600, 3, 0x1p-600, 0x1p-600});
  const auto s = measured(e, t);
  CHECK(s.squares.big == 2, s.squares.big);
  CHECK(s.squares.medium == 9, s.squares.medium);
  CHECK(s.squares.small == 3, s.squares.small);
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const auto executors = test::usable_executors();
  for (const FormatId format : test::all_formats) {
    for (const std::int64_t size : {0, 1, 15, 16, 17, 16383, 16384, 16385, 49159}) {
      auto values = test::random_values(61, size, -20, 12);
      one(executors, test::tensor(format, values));
      test::sprinkle(values, format, 62, 40);
      one(executors, test::tensor(format, values));
      for (double& x : values) x = 1000 + x * 0x1p-9;  // far from zero: moments that cancel in one pass
      one(executors, test::tensor(format, values));
    }
  }
  for (const auto& e : executors) extreme_squares(e);
  return test::report();
}
