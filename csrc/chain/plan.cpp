// planned_bytes: the tensors of chain/run.cpp and chain/recurrence.cpp by their shapes.
#include <algorithm>

#include "chain/recurrence.hpp"
#include "chain/run.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t typical_binades = 24;  // of a record's statistics

// Values of one layer and role, or the largest of any layer.
struct Sizes {
  std::int64_t weights = 0, outputs = 0, biases = 0;
};

}  // namespace

std::int64_t record_bytes(bool with_reference) {
  const std::int64_t cells = typical_binades * ops::cell_count * static_cast<std::int64_t>(sizeof(std::int64_t));
  return static_cast<std::int64_t>(sizeof(Record)) + cells * (with_reference ? 2 : 1);
}

std::int64_t Run::planned_bytes() const {
  Sizes all, most;
  std::int64_t records = 2;
  for (const Layer& layer : layers_) {
    const std::int64_t weights = layer.n_in * layer.n_out, outputs = batch_ * std::max(layer.n_in, layer.n_out);
    const std::int64_t biases = layer.bias.data ? layer.n_out : 0;
    all = {all.weights + weights, all.outputs + batch_ * layer.n_out, all.biases + biases};
    most = {std::max(most.weights, weights), std::max(most.outputs, outputs), std::max(most.biases, biases)};
    records += biases ? 8 : 6;
  }
  const std::int64_t input = batch_ * layers_[0].n_in, kept_activations = 2 * all.outputs + input;
  const Arithmetic& arithmetic = recorder_.arithmetic();
  const auto storage = container_bytes(arithmetic.storage);
  const auto wide = container_bytes(executor::wide_format(arithmetic.accumulate));
  std::int64_t given = input;  // what is in storage already is borrowed
  for (const Layer& layer : layers_)
    given +=
        recorder_.is_storage(layer.weight.format) ? 0 : layer.weight.size + (layer.bias.data ? layer.bias.size : 0);
  const bool in_storage = recorder_.is_storage(executor::wide_format(arithmetic.accumulate));
  const bool lanes = arithmetic.storage == executor::wide_format(arithmetic.accumulate);

  std::int64_t bytes = storage * (2 * all.outputs + (recorder_.is_storage(input_.format) ? 0 : input) + given - input);
  bytes += storage * (3 * most.outputs + most.weights + most.biases);            // gradients in work
  if (!in_storage) bytes += wide * (most.weights + most.outputs + most.biases);  // before rounding
  if (!lanes) bytes += wide * (2 * most.outputs + most.weights);                 // operands, widened
  if (recorder_.with_reference()) {
    constexpr std::int64_t real = 8;
    bytes += real * (kept_activations + 4 * most.outputs + 2 * most.weights);
    bytes += (real + storage) * 4 * most.outputs;  // the last of each role, to see stalls
  }
  if (recorder_.keeps_tensors()) {
    const std::int64_t kept = 4 * all.outputs + 2 * input + 2 * (all.weights + all.biases);
    bytes += (storage + (recorder_.with_reference() ? 8 : 0)) * kept;
  }
  return bytes + records * record_bytes(recorder_.with_reference());
}

std::int64_t Recurrence::planned_bytes() const {
  const std::int64_t steps = sequence_.steps, n = cell_.hidden, inputs = cell_.inputs;
  const std::int64_t units = sequence_.batch * n, values = sequence_.batch * inputs, weights = n * (n + inputs);
  const Arithmetic& arithmetic = recorder_.arithmetic();
  const FormatId sum = wide_format();
  const auto storage = container_bytes(arithmetic.storage), wide = container_bytes(sum);

  const std::int64_t blocks = back_by_spans_ ? 2 : 3;  // h and z, and dz, which may take its place
  std::int64_t bytes = storage * (steps * (values + blocks * units) + 4 * units);  // x besides; the gradients in work
  bytes += 4 * sequence_.batch * steps;                           // ones, to sum the bias gradient with
  bytes += (wide + 3 * storage) * weights + wide * 2 * n * n;     // weights, as read and their gradients
  if (!recorder_.is_storage(sum)) bytes += wide * steps * units;  // chains that go on
  const bool lanes = arithmetic.storage == sum;
  const std::int64_t at_once = sums_by_span() ? std::min(span, steps) : steps;
  if (!lanes) bytes += wide * at_once * (values + 2 * units);  // operands of the weight gradients, widened
  constexpr std::int64_t real = 8;
  bytes += real * 4 * units;  // of a contribution
  if (recorder_.with_reference()) bytes += real * (steps * (values + 2 * units) + 4 * units + 4 * weights);
  if (recorder_.keeps_tensors()) {
    const std::int64_t kept = steps * (values + 4 * units) + 2 * weights;
    bytes += (storage + (recorder_.with_reference() ? real : 0)) * kept;
  }
  return bytes + (6 * steps + 12) * record_bytes(recorder_.with_reference());
}

}  // namespace gradkern::chain
