// Chains by spans of layers or steps, each thread with its samples: the records are those of one thread, layer by layer.
#include <sys/mman.h>

#include <cmath>

#include "base/thread_pool.hpp"
#include "chain/recurrence.hpp"
#include "chain/run.hpp"
#include "check.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;

constexpr std::int64_t batch = 57, inputs = 9, hidden = 20, steps = 35;

chain::Source source_of(const std::vector<double>& v) {
  return {FormatId::float64, v.data(), static_cast<std::int64_t>(v.size())};
}

std::vector<double> numbers_of(const std::vector<chain::Record>& records) {
  std::vector<double> numbers;
  for (const chain::Record& r : records) {
    const chain::Summary& s = r.stored;
    for (const std::int64_t count : r.rounding.events) numbers.push_back(static_cast<double>(count));
    for (const std::int64_t cell : s.cells) numbers.push_back(static_cast<double>(cell));
    for (const double n : {double(r.layer), double(static_cast<int>(r.role)), double(s.size), double(s.nan),
                           double(s.zero), double(s.first_nonfinite), s.amax, s.amin, s.moments.mean, s.moments.l1,
                           s.moments.squares.medium, r.rounding.noise.medium, r.rounding.signal.medium})
      numbers.push_back(n);
  }
  return numbers;
}

const chain::Poll no_poll = [](std::int64_t, std::int64_t) {};

std::vector<double> run_layers(const executor::Executor& e, const chain::Arithmetic& arithmetic, double scale,
                               bool measured) {
  constexpr int depth = 37;  // spans, and a rest
  const std::int64_t pattern[] = {40, 1, 33, 64, 17, 5, 70, 3, 3, 20, 6};
  std::int64_t widths[depth + 1] = {inputs};
  for (int l = 1; l <= depth; ++l) widths[l] = pattern[l % 11];
  std::vector<std::vector<double>> weights, biases;
  for (int l = 0; l < depth; ++l) {
    weights.push_back(test::random_values(60 + l, widths[l] * widths[l + 1], -3, 0));
    biases.push_back(test::random_values(80 + l, widths[l + 1], -3, 1));
  }
  std::vector<chain::Layer> layers;
  for (int l = 0; l < depth; ++l) {
    const auto i = static_cast<std::size_t>(l);
    layers.push_back({widths[l],
                      widths[l + 1],
                      source_of(weights[i]),
                      l % 2 ? chain::Source{} : source_of(biases[i]),
                      {l % 3 ? ops::ActivationId::tanh : ops::ActivationId::relu, 0.0}});
  }
  const auto x = test::random_values(5, batch * inputs, -4, 2);
  chain::Run run(e, arithmetic, layers, source_of(x), batch, scale, false, false, measured);
  run.forward(no_poll);
  run.backward(chain::Values(static_cast<std::size_t>(batch * widths[depth]), 1.0), {}, no_poll);
  return numbers_of(run.records());
}

std::vector<double> run_steps(const executor::Executor& e, const chain::Arithmetic& arithmetic, double scale,
                              bool measured) {
  const auto w = test::random_values(1, hidden * hidden, -4, -1), v = test::random_values(2, hidden * inputs, -3, 0);
  const auto b = test::random_values(3, hidden, -3, 0), x = test::random_values(4, steps * batch * inputs, -4, 1);
  const chain::Cell cell{hidden, inputs, source_of(w), source_of(v), source_of(b), {ops::ActivationId::tanh, 0.0}};
  chain::Recurrence run(e, arithmetic, cell, {source_of(x), steps, batch, {}, 0, false}, scale, false, false, measured);
  run.forward(no_poll);
  run.backward({chain::Values(static_cast<std::size_t>(batch * hidden), 1.0), {}, {}}, no_poll);
  auto numbers = numbers_of(run.records());
  for (const chain::Contribution& c : run.contributions()) numbers.push_back(c.log2_norm);
  return numbers;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!test::same(a[i], b[i])) return false;
  return true;
}

void same_as_one_by_one() {
  for (const auto& e : test::usable_executors()) {
    for (const FormatId storage : test::storage_formats) {
      for (const FormatId accumulate : {FormatId::float64, FormatId::float32, FormatId::float16}) {
        for (const auto run : {run_layers, run_steps}) {
          for (const double scale : {1.0, 16.0}) {
            const chain::Arithmetic arithmetic{storage, storage, accumulate, {}, false};
            base::set_num_threads(1);
            const auto truth = run(e, arithmetic, scale, true);
            for (const int threads : {2, 3, 7}) {
              base::set_num_threads(threads);
              CHECK(same(run(e, arithmetic, scale, true), truth), e.name, test::name_of(storage),
                    test::name_of(accumulate), scale, threads);
              CHECK(run(e, arithmetic, scale, false).size() > 0, e.name);
            }
          }
        }
      }
    }
  }
}

// What is settled is not written while it is recorded, for others may be reading it: it lies in a page that nobody can write.
void settled_stays() {
  const std::int64_t size = 1500;
  auto values = test::random_values(7, size, -20, 18);
  values[100] = HUGE_VAL;
  values[1200] = std::nan("");
  const std::size_t page = 4096;
  void* const memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  for (const auto& e : test::usable_executors()) {
    for (const FormatId storage : {FormatId::float16, FormatId::bfloat16, FormatId::float8_e5m2}) {
      for (const bool measured : {true, false}) {
        const chain::Arithmetic arithmetic{storage, storage, FormatId::float32, {}, false};
        chain::Recorder recorder(e, arithmetic, 1, false, false, measured), again(e, arithmetic, 1, false, false, true);
        chain::Stored wide, stored, apart;
        wide.borrow(source_of(values));
        stored.place = memory;
        stored.resize(storage, size);
        recorder.settle(stored, wide);
        mprotect(memory, page, PROT_READ);
        recorder.record({{&stored, &wide, 1, chain::Role::activation, true, {}}});
        mprotect(memory, page, PROT_READ | PROT_WRITE);
        if (!measured) continue;
        apart.resize(storage, size);
        again.record({{&apart, &wide, 1, chain::Role::activation, false, {}}});
        CHECK(same(numbers_of(recorder.records()), numbers_of(again.records())), e.name, test::name_of(storage));
      }
    }
  }
  munmap(memory, page);
}

}  // namespace
}  // namespace gradkern

int main() {
  gradkern::settled_stays();
  gradkern::same_as_one_by_one();
  return gradkern::test::report();
}
