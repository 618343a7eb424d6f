#include "chain/device_plan.hpp"

#include <algorithm>

#include "base/thread_pool.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t alignment = 256;  // of a device's transactions

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

}  // namespace

DevicePlan::DevicePlan(const Arithmetic& arithmetic, const std::vector<Layer>& net, const Source& input,
                       std::int64_t batch, double loss_scale, bool with_measures)
    : measured(with_measures), storage(arithmetic.storage) {
  add_tensors(arithmetic, net, input, batch, loss_scale);
  if (measured) formats::visit(storage, [&](auto f) { place_results<decltype(f)>(); });
  place_values(arithmetic, net, input, batch);
}

std::int64_t DevicePlan::planned_bytes() const {
  return bytes + fetched + static_cast<std::int64_t>(tensors.size()) * record_bytes(false);
}

std::int64_t DevicePlan::add(std::int64_t layer, Role role, std::int64_t size, bool rounded) {
  const bool by_pattern = formats::visit(storage, [&](auto f) { return ops::measured_by_pattern<decltype(f)>(size); });
  tensors.push_back({layer, role, size, rounded, by_pattern});
  return static_cast<std::int64_t>(tensors.size()) - 1;
}

// In the order in which Recorder stores them.
void DevicePlan::add_tensors(const Arithmetic& arithmetic, const std::vector<Layer>& net, const Source& input,
                             std::int64_t batch, double loss_scale) {
  const std::int64_t depth = static_cast<std::int64_t>(net.size());
  const auto given = [&](const Source& source) { return !arithmetic.is_storage(source.format); };
  const bool summed = !arithmetic.is_storage(executor::wide_format(arithmetic.accumulate));
  const bool applied = !arithmetic.is_storage(executor::wide_format(storage));
  layers.resize(net.size());
  add(0, Role::activation, input.size, given(input));
  for (std::int64_t l = 1; l <= depth; ++l) {
    const Layer& layer = net[at(l - 1)];
    DeviceLayer& d = layers[at(l - 1)];
    const std::int64_t outputs = batch * layer.n_out;
    d.weight = add(l, Role::weight, layer.weight.size, given(layer.weight));
    d.bias = layer.bias.data ? add(l, Role::bias, layer.bias.size, given(layer.bias)) : -1;
    d.z = add(l, Role::pre_activation, outputs, summed);
    d.h = add(l, Role::activation, outputs, applied);
  }
  forward.end = backward.begin = static_cast<std::int64_t>(tensors.size());
  add(depth, Role::grad_activation, batch * net.back().n_out,
      loss_scale != 1 || !arithmetic.is_storage(FormatId::float64));
  for (std::int64_t l = depth; l >= 1; --l) {
    const Layer& layer = net[at(l - 1)];
    DeviceLayer& d = layers[at(l - 1)];
    d.dz = add(l, Role::grad_pre_activation, batch * layer.n_out, applied);
    d.dw = add(l, Role::grad_weight, layer.weight.size, summed);
    d.db = layer.bias.data ? add(l, Role::grad_bias, layer.n_out, summed) : -1;
    d.dh = add(l - 1, Role::grad_activation, batch * layer.n_in, summed);
  }
  backward.end = static_cast<std::int64_t>(tensors.size());
}

template <class T>
std::int64_t DevicePlan::take(std::int64_t count) {
  const std::int64_t place = bytes;
  bytes += base::chunk_count(count * static_cast<std::int64_t>(sizeof(T)), alignment) * alignment;
  return place;
}

// Partial results first, those that start as zeros before the rest; then what the host says about lists of tensors.
template <class F>
void DevicePlan::place_results() {
  constexpr std::int64_t patterns = std::int64_t(1) << std::min<int>(8 * sizeof(typename F::container), 16);
  constexpr std::int64_t cells = executor::BinadeRange<F>::cells;
  DevicePass* const passes[] = {&forward, &backward};
  for (DevicePass* pass : passes) {
    for (std::int64_t i = pass->begin; i < pass->end; ++i)
      if (!tensor(i).by_pattern)
        pass->first_chunk.push_back(pass->first_chunk.back() +
                                    base::chunk_count(tensor(i).size, ops::statistics_chunk));
    pass->cells = take<std::int64_t>((static_cast<std::int64_t>(pass->first_chunk.size()) - 1) * cells);
  }
  for (DeviceTensor& t : tensors)
    if (t.by_pattern) t.cells = take<std::int64_t>(patterns);
  cleared = bytes;

  for (DevicePass* pass : passes) {
    pass->partials = take<executor::StatisticsChunk>(pass->first_chunk.back());
    std::int64_t nth = 0;
    for (std::int64_t i = pass->begin; i < pass->end; ++i) {
      DeviceTensor& t = tensors[at(i)];
      if (t.by_pattern) continue;
      t.cells = pass->cells + nth * cells * 8;
      t.partials = pass->partials + pass->first_chunk[at(nth)] * std::int64_t(sizeof(executor::StatisticsChunk));
      ++nth;
    }
  }
  for (DeviceTensor& t : tensors)
    if (t.rounded) t.counts = take<ops::RoundingCounts>(base::chunk_count(t.size, ops::rounding_chunk));

  tables_begin = bytes;
  for (DeviceTensor& t : tensors)
    if (t.by_pattern) t.partials = take<std::int64_t>(1);
  fetched = bytes;
  for (DevicePass* pass : passes) {
    pass->first_chunks = take<std::int64_t>(static_cast<std::int64_t>(pass->first_chunk.size()));
    pass->descriptors = take<executor::StatisticsArgs>(static_cast<std::int64_t>(pass->first_chunk.size()) - 1);
  }
}

// Arguments that are rounded lie where the backward pass, which comes later, puts its tensors.
void DevicePlan::place_values(const Arithmetic& arithmetic, const std::vector<Layer>& net, const Source& input,
                              std::int64_t batch) {
  if (!measured) tables_begin = bytes;
  ones = take<float>(batch);
  tables_end = bytes;
  const auto place = [&](const DevicePass& pass) {
    for (std::int64_t i = pass.begin; i < pass.end; ++i)
      tensors[at(i)].values = take<std::uint8_t>(tensor(i).size * container_bytes(storage));
  };
  std::int64_t most = 0;
  for (const DeviceTensor& t : tensors) most = std::max(most, t.size);
  const FormatId sum = executor::wide_format(arithmetic.accumulate), phi = executor::wide_format(storage);
  if (!arithmetic.is_storage(sum) || !arithmetic.is_storage(phi))
    wide = take<std::uint8_t>(most * std::max(container_bytes(sum), container_bytes(phi)));
  place(forward);
  const std::int64_t shared = bytes;
  const auto give = [&](std::int64_t index, const Source& source) {
    DeviceTensor& t = tensors[at(index)];
    if (t.rounded) t.source = take<std::uint8_t>(source.size * container_bytes(source.format));
  };
  give(forward.begin, input);
  for (std::size_t l = 0; l < net.size(); ++l) {
    give(layers[l].weight, net[l].weight);
    if (net[l].bias.data) give(layers[l].bias, net[l].bias);
  }
  const std::int64_t forward_end = bytes;
  bytes = shared;
  place(backward);
  tensors[at(backward.begin)].source = take<double>(tensor(backward.begin).size);
  bytes = std::max(bytes, forward_end);
}

}  // namespace gradkern::chain
