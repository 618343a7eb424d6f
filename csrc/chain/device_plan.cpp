#include "chain/device_plan.hpp"

#include <algorithm>

#include "base/thread_pool.hpp"
#include "executor/pinned.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t alignment = 256;  // of a device's transactions

}  // namespace

DevicePlan::DevicePlan(const Arithmetic& arithmetic, const std::vector<Layer>& net, const Source& input,
                       std::int64_t batch, double loss_scale, bool with_measures, std::int64_t bytes_of_part)
    : measured(with_measures), part_bytes(bytes_of_part), storage(arithmetic.storage) {
  add_tensors(arithmetic, net, input, batch, loss_scale);
  if (measured) formats::visit(storage, [&](auto f) { place_results<decltype(f)>(); });
  place_values(arithmetic, batch);
}

std::int64_t DevicePlan::planned_bytes() const {
  const std::int64_t output = container_bytes(storage) * tensor(layers.back().h).size;
  return bytes + std::min(staged_bytes, most_staged_bytes() + largest_staged) +
         std::max(executor::Pinned::size_of(fetched), executor::Pinned::size_of(output)) +
         static_cast<std::int64_t>(tensors.size()) * record_bytes(false);
}

void DevicePlan::stage(std::int64_t bytes_of_block) {
  const std::int64_t taken = executor::Pinned::size_of(bytes_of_block);
  staged_bytes += taken;
  largest_staged = std::max(largest_staged, taken);
}

std::int64_t DevicePlan::add(std::int64_t layer, Role role, std::int64_t size, bool rounded, bool given) {
  const bool by_pattern = formats::visit(storage, [&](auto f) { return ops::measured_by_pattern<decltype(f)>(size); });
  tensors.push_back({layer, role, size, given, rounded, by_pattern});
  return static_cast<std::int64_t>(tensors.size()) - 1;
}

// In the order in which Recorder stores them.
void DevicePlan::add_tensors(const Arithmetic& arithmetic, const std::vector<Layer>& net, const Source& input,
                             std::int64_t batch, double loss_scale) {
  const std::int64_t depth = static_cast<std::int64_t>(net.size());
  const auto give = [&](std::int64_t l, Role role, const Source& source) {
    arguments.push_back({add(l, role, source.size, !arithmetic.is_storage(source.format), true), source});
    return arguments.back().tensor;
  };
  const bool summed = !arithmetic.is_storage(executor::wide_format(arithmetic.accumulate));
  const bool applied = !arithmetic.is_storage(executor::wide_format(storage));
  layers.resize(net.size());
  give(0, Role::activation, input);
  for (std::int64_t l = 1; l <= depth; ++l) {
    const Layer& layer = net[at(l - 1)];
    DeviceLayer& d = layers[at(l - 1)];
    const std::int64_t outputs = batch * layer.n_out;
    d.weight = give(l, Role::weight, layer.weight);
    d.bias = layer.bias.data ? give(l, Role::bias, layer.bias) : -1;
    d.z = add(l, Role::pre_activation, outputs, summed);
    d.h = add(l, Role::activation, outputs, applied);
  }
  forward.end = backward.begin = static_cast<std::int64_t>(tensors.size());
  add(depth, Role::grad_activation, batch * net.back().n_out,
      loss_scale != 1 || !arithmetic.is_storage(FormatId::float64), true);
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
  const std::int64_t least = 1;  // an empty tensor has a place too
  bytes += base::chunk_count(std::max(count * static_cast<std::int64_t>(sizeof(T)), least), alignment) * alignment;
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
    if (t.rounded && !t.given) t.counts = take<ops::RoundingCounts>(base::chunk_count(t.size, ops::rounding_chunk));

  tables_begin = bytes;
  for (DeviceTensor& t : tensors)
    if (t.by_pattern) t.partials = take<std::int64_t>(1);
  fetched = bytes;
  for (DevicePass* pass : passes) {
    pass->first_chunks = take<std::int64_t>(static_cast<std::int64_t>(pass->first_chunk.size()));
    pass->descriptors = take<executor::StatisticsArgs>(static_cast<std::int64_t>(pass->first_chunk.size()) - 1);
  }
}

void DevicePlan::place_arguments() {
  const auto place = [&](std::int64_t tensor) {
    return tensors[at(tensor)].values = take<std::uint8_t>(tensors[at(tensor)].size * container_bytes(storage));
  };
  std::int64_t part_begin = bytes;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(arguments.size()); ++i) {
    const std::int64_t index = arguments[at(i)].tensor, values = place(index);
    if (parts.empty() || bytes - part_begin > part_bytes) {
      if (!parts.empty()) stage(values - part_begin);
      parts.push_back({tensor(index).layer, i, i});
      part_begin = values;
    }
    parts.back().end = i + 1;
  }
  stage(bytes - part_begin);
  const std::int64_t gradient = place(backward.begin);
  stage(bytes - gradient);
  stage(tables_end - tables_begin);
}

void DevicePlan::place_values(const Arithmetic& arithmetic, std::int64_t batch) {
  if (!measured) tables_begin = bytes;
  ones = take<std::uint8_t>(batch * container_bytes(storage));
  tables_end = bytes;
  place_arguments();
  for (DeviceTensor& t : tensors)
    if (!t.given) t.values = take<std::uint8_t>(t.size * container_bytes(storage));
  place_wide(arithmetic);
}

// Values before they are rounded, of the operations in work: one after another in the same place, but the gradients of a
// layer, which are made at once, side by side.
void DevicePlan::place_wide(const Arithmetic& arithmetic) {
  const FormatId sum = executor::wide_format(arithmetic.accumulate), phi = executor::wide_format(storage);
  const std::int64_t each = std::max(container_bytes(sum), container_bytes(phi));
  const std::int64_t begin = bytes;
  std::int64_t end = bytes;
  const auto place = [&](std::initializer_list<std::int64_t> together) {
    bytes = begin;
    for (const std::int64_t t : together)
      if (t >= 0 && tensor(t).rounded) tensors[at(t)].wide = take<std::uint8_t>(tensor(t).size * each);
    end = std::max(end, bytes);
  };
  for (const DeviceLayer& d : layers) {
    for (const std::int64_t alone : {d.z, d.h, d.dz}) place({alone});
    place({d.dw, d.db, d.dh});
  }
  bytes = end;
}

}  // namespace gradkern::chain
