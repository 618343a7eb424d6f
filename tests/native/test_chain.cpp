// Chains: every storage format forward and backward, on every executor and thread count, with ordinary, tiny, huge and
// non-finite inputs. The fates sum to the size, and no bit depends on who computed it.
#include <cmath>

#include "base/thread_pool.hpp"
#include "chain/run.hpp"
#include "check.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;

constexpr std::int64_t batch = 3;
constexpr std::int64_t widths[] = {5, 7, 1, 33, 4};
constexpr ops::ActivationId activations[] = {ops::ActivationId::tanh, ops::ActivationId::relu, ops::ActivationId::gelu,
                                             ops::ActivationId::identity};

struct Net {
  std::vector<std::vector<double>> weights, biases;
  std::vector<chain::Layer> layers;
};

Net net(double gain) {
  Net n;
  for (int l = 0; l < 4; ++l) {
    n.weights.push_back(test::random_values(60 + l, widths[l] * widths[l + 1], -3, 1));
    for (double& w : n.weights.back()) w *= gain;
    n.biases.push_back(test::random_values(70 + l, widths[l + 1], -3, 1));
  }
  for (int l = 0; l < 4; ++l) {
    const auto source = [](const std::vector<double>& v) {
      return chain::Source{FormatId::float64, v.data(), static_cast<std::int64_t>(v.size())};
    };
    const auto i = static_cast<std::size_t>(l);
    n.layers.push_back({widths[l],
                        widths[l + 1],
                        source(n.weights[i]),
                        l == 2 ? chain::Source{} : source(n.biases[i]),
                        {activations[l], 0.0}});
  }
  return n;
}

std::vector<std::uint8_t> run(const executor::Executor& e, const Net& n, std::vector<double> x, FormatId storage,
                              FormatId accumulate, double scale) {
  const chain::Arithmetic arithmetic{storage, storage, accumulate, {}, false};
  const chain::Source input{FormatId::float64, x.data(), static_cast<std::int64_t>(x.size())};
  chain::Run chain(e, arithmetic, n.layers, input, batch, scale, true, true, true);
  std::int64_t steps = 0;
  const auto poll = [&](std::int64_t, std::int64_t) { ++steps; };
  chain.forward(poll);
  const chain::Values gradient(static_cast<std::size_t>(batch * widths[4]), 1.0);
  chain.backward(gradient, {gradient, 0}, poll);
  CHECK(steps == 9, steps);
  std::vector<std::uint8_t> bytes;
  for (const chain::Record& r : chain.records()) {
    std::int64_t fates = 0, events = 0;
    for (const std::int64_t count : r.attribution.counts) fates += count;
    for (const std::int64_t count : r.rounding.events) events += count;
    CHECK(fates == r.tensor.size && events == r.tensor.size, e.name, test::name_of(storage), r.layer);
    bytes.insert(bytes.end(), r.tensor.bytes.data(), r.tensor.bytes.data() + r.tensor.bytes.size());
  }
  return bytes;
}

void same_everywhere() {
  const auto executors = test::usable_executors();
  std::vector<double> ordinary = test::random_values(80, batch * widths[0], -4, 2), wild = ordinary;
  wild[1] = std::nan("");
  wild[6] = -INFINITY;
  wild[11] = 1e300;
  for (const FormatId storage : test::all_formats) {
    if (storage == FormatId::tfloat32) continue;
    for (const FormatId accumulate : {FormatId::float64, FormatId::float32, FormatId::float16, FormatId::bfloat16}) {
      for (const auto& x : {ordinary, wild}) {
        for (const double gain : {0x1p-9, 1.0, 0x1p12}) {
          const Net n = net(gain);
          base::set_num_threads(1);
          const auto truth = run(executors.front(), n, x, storage, accumulate, 64.0);
          for (const auto& e : executors) {
            for (const int threads : {1, 3}) {
              base::set_num_threads(threads);
              CHECK(run(e, n, x, storage, accumulate, 64.0) == truth, e.name, test::name_of(storage), gain, threads);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  gradkern::same_everywhere();
  return gradkern::test::report();
}
