// Recurrent nets: every storage format and accumulator, on every executor and thread count, with ordinary, tiny, huge and
// non-finite inputs. The fates sum to the size, and no bit depends on who computed it.
#include "chain/recurrence.hpp"

#include <cmath>

#include "base/thread_pool.hpp"
#include "chain/outer.hpp"
#include "check.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;
using test::Tensor;

constexpr std::int64_t steps = 5, batch = 3, hidden = 7, inputs = 4;

chain::Source source_of(const std::vector<double>& v) {
  return {FormatId::float64, v.data(), static_cast<std::int64_t>(v.size())};
}

struct Case {
  std::vector<double> w, v, b, x, h0;
  FormatId storage, accumulate;
  ops::ActivationId activation;
  std::int64_t truncate, losses;
  bool round_every_step;
};

Case random_case(FormatId storage, FormatId accumulate, double gain, bool wild) {
  Case c{test::random_values(1, hidden * hidden, -3, 1),
         test::random_values(2, hidden * inputs, -3, 1),
         test::random_values(3, hidden, -3, 1),
         test::random_values(4, steps * batch * inputs, -4, 2),
         test::random_values(5, batch * hidden, -3, 0),
         storage,
         accumulate,
         ops::ActivationId::tanh,
         0,
         1,
         false};
  for (double& w : c.w) w *= gain;
  if (wild) {
    c.x[1] = std::nan("");
    c.x[17] = -INFINITY;
    c.x[30] = 1e300;
  }
  return c;
}

struct Result {
  std::vector<std::uint8_t> bytes;
  std::vector<double> norms;
};

bool same(const Result& a, const Result& b) {
  if (a.bytes != b.bytes || a.norms.size() != b.norms.size()) return false;
  for (std::size_t i = 0; i < a.norms.size(); ++i)
    if (!test::same(a.norms[i], b.norms[i])) return false;
  return true;
}

Result run(const executor::Executor& e, const Case& c) {
  const chain::Arithmetic arithmetic{c.storage, c.storage, c.accumulate, {}, false};
  const chain::Cell cell{hidden, inputs, source_of(c.w), source_of(c.v), source_of(c.b), {c.activation, 0.0}};
  const chain::Sequence sequence{source_of(c.x), steps, batch, source_of(c.h0), c.truncate, c.round_every_step};
  chain::Recurrence chain(e, arithmetic, cell, sequence, 64.0, true, true, true);
  std::int64_t polls = 0;
  const auto poll = [&](std::int64_t, std::int64_t) { ++polls; };
  chain.forward(poll);
  const chain::Values gradient(static_cast<std::size_t>(c.losses * batch * hidden), 1.0);
  chain.backward({gradient, gradient, std::vector<std::int64_t>(static_cast<std::size_t>(c.losses), 0)}, poll);
  CHECK(polls > steps, polls);
  Result result;
  for (const chain::Record& r : chain.records()) {
    std::int64_t fates = 0, events = 0;
    for (const std::int64_t count : r.attribution.counts) fates += count;
    for (const std::int64_t count : r.rounding.events) events += count;
    CHECK(fates == r.tensor.size && events == r.tensor.size, e.name, test::name_of(c.storage), r.layer,
          chain::role_names[static_cast<int>(r.role)]);
    result.bytes.insert(result.bytes.end(), r.tensor.bytes.data(), r.tensor.bytes.data() + r.tensor.bytes.size());
    result.norms.push_back(r.relative_error);
  }
  for (const chain::Contribution& s : chain.contributions()) {
    result.norms.push_back(s.log2_norm);
    result.norms.push_back(s.log2_running_truth);
  }
  return result;
}

void same_everywhere() {
  const auto executors = test::usable_executors();
  for (const FormatId storage : test::storage_formats) {
    for (const FormatId accumulate : {FormatId::float64, FormatId::float32, FormatId::float16, FormatId::bfloat16}) {
      for (const double gain : {0x1p-9, 1.0, 0x1p12}) {
        for (const int kind : {0, 1, 2, 3, 4}) {
          Case c = random_case(storage, accumulate, gain, kind == 1);
          if (kind == 2) c.losses = steps;
          if (kind == 3) c.truncate = 2, c.losses = steps;
          if (kind == 4) c.round_every_step = true, c.truncate = 3;
          base::set_num_threads(1);
          const Result truth = run(executors.front(), c);
          for (const auto& e : executors) {
            for (const int threads : {1, 3}) {
              base::set_num_threads(threads);
              CHECK(same(run(e, c), truth), e.name, test::name_of(storage), test::name_of(accumulate), gain, kind);
            }
          }
        }
      }
    }
  }
}

// The norm of a sum of outer products, by the short way and by the long one.
void outer_sums() {
  const auto executors = test::usable_executors();
  const executor::Executor& e = executors.front();
  const auto norm = [&](const Tensor& a, const Tensor& b, std::int64_t rows) {
    return chain::log2_norm_of_outer_sum(e, {a.format, a.data(), a.size()}, {b.format, b.data(), b.size()}, rows);
  };
  for (const FormatId format : {FormatId::float64, FormatId::float32, FormatId::bfloat16}) {
    for (const std::int64_t rows : {1, 2, 5, 40}) {
      for (const int power : {0, -100, 60, format == FormatId::float64 ? -900 : -120}) {
        auto values = test::random_values(6, rows * 30, -2, 2);
        for (double& v : values) v = std::ldexp(v, power);
        const Tensor a = test::tensor(format, values),
                     b = test::tensor(format, test::random_values(7, rows * 50, -2, 2));
        double sum = 0;
        for (int i = 0; i < 30; ++i) {
          for (int j = 0; j < 50; ++j) {
            double entry = 0;
            for (std::int64_t r = 0; r < rows; ++r)
              entry += std::ldexp(a.values[static_cast<std::size_t>(r * 30 + i)], -power) *
                       b.values[static_cast<std::size_t>(r * 50 + j)];
            sum += entry * entry;
          }
        }
        const double expected = std::log2(sum) / 2 + power, got = norm(a, b, rows);
        CHECK(std::abs(got - expected) < 1e-12 * std::max(1.0, std::abs(expected)), test::name_of(format), rows, power,
              got, expected);
      }
    }
  }
  // Rows that annihilate one another leave less than the short way can see.
  std::vector<double> a(60), b(100);
  for (std::size_t i = 0; i < 30; ++i) a[i] = 1, a[30 + i] = -1;
  for (double& v : b) v = 1;
  b[50] = 1 + 0x1p-20;
  for (const FormatId format : {FormatId::float64, FormatId::float32}) {
    const double got = norm(test::tensor(format, a), test::tensor(format, b), 2);
    CHECK(std::abs(got - (-20 + std::log2(30) / 2)) < 1e-9, got);
    for (const double bad : {std::nan(""), HUGE_VAL}) {
      auto broken = b;
      broken[7] = bad;
      CHECK(std::isnan(norm(test::tensor(format, a), test::tensor(format, broken), 2)));
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  gradkern::same_everywhere();
  gradkern::outer_sums();
  return gradkern::test::report();
}
