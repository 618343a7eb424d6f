// Run by spans of layers, for small layers: each thread takes some samples through a span, and what they make is recorded
// whole. A thread reads all weights of the span, so they must be few; the bits are those of layer by layer.
#include <algorithm>

#include "base/thread_pool.hpp"
#include "chain/run.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t few_weights = 128 * 128;  // of a layer: packing them costs every thread little
constexpr std::int64_t rows_worth_a_thread = 8;

}  // namespace

bool Run::goes_by_spans() const {
  if (recorder_.with_reference() || recorder_.keeps_tensors() || recorder_.executor().device) return false;
  if (recorder_.arithmetic().mode.rounding == formats::Rounding::stochastic) return false;
  if (base::num_threads() < 2 || batch_ < rows_worth_a_thread * base::num_threads()) return false;
  return std::all_of(layers_.begin(), layers_.end(), [](const Layer& l) { return l.n_in * l.n_out <= few_weights; });
}

template <class Body>
void Run::for_rows(Body body) const {
  const std::int64_t parts = base::num_threads();
  base::parallel_for(parts, [&](std::int64_t p) {
    const std::int64_t begin = batch_ * p / parts, rows = batch_ * (p + 1) / parts - begin;
    body(rows, [=](Stored& tensor, std::int64_t columns) { return tensor.part(begin * columns, rows * columns); });
  });
}

// Values before rounding: in the tensor itself where rounding changes nothing, else apart.
Stored& Run::wide_of(Stored& stored, Stored& apart, FormatId format) const {
  Stored& wide = recorder_.is_storage(format) ? stored : apart;
  wide.resize(format, stored.size);
  return wide;
}

void Run::forward_span(std::int64_t first) {
  const std::int64_t last = std::min(first + span, static_cast<std::int64_t>(layers_.size()) + 1) - 1;
  const FormatId storage = recorder_.arithmetic().storage, phi_format = executor::wide_format(storage);
  const FormatId sum = executor::wide_format(recorder_.arithmetic().accumulate);
  std::vector<Stored> given(at(2 * span)), apart(at(2 * span));
  std::vector<Recorder::Complete> tensors;
  const auto give = [&](Stored& stored, const Source& source, Stored& as_given, std::int64_t l, Role role) {
    as_given.borrow(source);
    if (recorder_.is_storage(source.format)) {
      stored.borrow(source);
    } else {
      stored.resize(storage, source.size);
      recorder_.settle(stored, as_given);
    }
    tensors.push_back({&stored, &as_given, l, role, true, {}});
  };
  for (std::int64_t l = first; l <= last; ++l) {
    const Layer& layer = layers_[at(l - 1)];
    const std::size_t i = at(2 * (l - first));
    give(weights_[at(l - 1)], layer.weight, given[i], l, Role::weight);
    if (layer.bias.data) give(biases_[at(l - 1)], layer.bias, given[i + 1], l, Role::bias);
    Stored& z = pre_activations_[at(l - 1)];
    Stored& h = activations_[at(l)];
    z.resize(storage, batch_ * layer.n_out);
    h.resize(storage, batch_ * layer.n_out);
    tensors.push_back({&z, &wide_of(z, apart[i], sum), l, Role::pre_activation, true, {}});
    tensors.push_back({&h, &wide_of(h, apart[i + 1], phi_format), l, Role::activation, true, {}});
  }
  for_rows([&](std::int64_t rows, auto rows_of) {
    for (std::int64_t l = first; l <= last; ++l) {
      const Layer& layer = layers_[at(l - 1)];
      const std::size_t i = at(2 * (l - first));
      const std::int64_t n = layer.n_out;
      Stored x = rows_of(activations_[at(l - 1)], layer.n_in), z = rows_of(pre_activations_[at(l - 1)], n);
      Stored h = rows_of(activations_[at(l)], n);
      Stored sums = recorder_.is_storage(sum) ? rows_of(pre_activations_[at(l - 1)], n) : rows_of(apart[i], n);
      Stored wide = recorder_.is_storage(phi_format) ? rows_of(activations_[at(l)], n) : rows_of(apart[i + 1], n);
      executor::ProductArgs dense = product(rows, n, layer.n_in, recorder_.operand(x, layer.n_in, 1),
                                            recorder_.operand(weights_[at(l - 1)], 1, layer.n_in));
      dense.bias = layer.bias.data ? biases_[at(l - 1)].data() : nullptr;
      recorder_.sums(dense, Role::pre_activation, sums);
      recorder_.settle(z, sums);
      recorder_.phi(layer.activation, z, wide);
      recorder_.settle(h, wide);
    }
  });
  recorder_.record(tensors);
}

// Layers last down to first, dh of layer last being in gradient_.
void Run::backward_span(std::int64_t last) {
  const std::int64_t first = std::max<std::int64_t>(1, last - span + 1), count = last - first + 1;
  const FormatId storage = recorder_.arithmetic().storage, phi_format = executor::wide_format(storage);
  const FormatId sum = executor::wide_format(recorder_.arithmetic().accumulate);
  span_.resize(at(8 * span));  // of each layer dz, dh, dW and db, each with its values before rounding beside it
  std::vector<Recorder::Complete> tensors;
  const auto tensor = [&](std::int64_t c, int which, std::int64_t size) -> Stored& {
    Stored& s = span_[at(8 * c + 2 * which)];
    s.resize(storage, size);
    return s;
  };
  const auto apart = [&](std::int64_t c, int which) -> Stored& { return span_[at(8 * c + 2 * which + 1)]; };
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t l = last - c;
    const Layer& layer = layers_[at(l - 1)];
    const std::int64_t n_in = layer.n_in, n_out = layer.n_out;
    Stored& dz = tensor(c, 0, batch_ * n_out);
    Stored& dh = tensor(c, 1, batch_ * n_in);
    Stored& dw = tensor(c, 2, n_in * n_out);
    tensors.push_back({&dz, &wide_of(dz, apart(c, 0), phi_format), l, Role::grad_pre_activation, true, {}});
    Stored& dw_sums = wide_of(dw, apart(c, 2), sum);
    tensors.push_back({&dw, &dw_sums, l, Role::grad_weight, false, [=, this, &dz, &dw_sums] {
                         const executor::ProductArgs args =
                             product(n_out, n_in, batch_, recorder_.operand(dz, 1, n_out),
                                     recorder_.operand(activations_[at(l - 1)], n_in, 1));
                         recorder_.sums(args, Role::grad_weight, dw_sums);
                       }});
    if (layer.bias.data) {
      Stored& db = tensor(c, 3, n_out);
      Stored& db_sums = wide_of(db, apart(c, 3), sum);
      tensors.push_back({&db, &db_sums, l, Role::grad_bias, false, [=, this, &dz, &db_sums] {
                           const executor::Operand ones{FormatId::float32, ones_.data(), batch_, 1};
                           recorder_.sums(product(1, n_out, batch_, ones, recorder_.operand(dz, n_out, 1)),
                                          Role::grad_bias, db_sums);
                         }});
    }
    tensors.push_back({&dh, &wide_of(dh, apart(c, 1), sum), l - 1, Role::grad_activation, true, {}});
  }
  for_rows([&](std::int64_t rows, auto rows_of) {
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t l = last - c;
      const Layer& layer = layers_[at(l - 1)];
      const std::int64_t n_in = layer.n_in, n_out = layer.n_out;
      Stored dh = rows_of(c ? span_[at(8 * (c - 1) + 2)] : gradient_, n_out);
      Stored z = rows_of(pre_activations_[at(l - 1)], n_out), h = rows_of(activations_[at(l)], n_out);
      Stored dz = rows_of(span_[at(8 * c)], n_out), next = rows_of(span_[at(8 * c + 2)], n_in);
      Stored wide = rows_of(span_[at(8 * c + (recorder_.is_storage(phi_format) ? 0 : 1))], n_out);
      Stored sums = rows_of(span_[at(8 * c + (recorder_.is_storage(sum) ? 2 : 3))], n_in);
      recorder_.phi_backward(layer.activation, dh, z, h, wide, nullptr);
      recorder_.settle(dz, wide);
      recorder_.sums(
          product(rows, n_in, n_out, recorder_.operand(dz, n_out, 1), recorder_.operand(weights_[at(l - 1)], n_in, 1)),
          Role::grad_activation, sums);
      recorder_.settle(next, sums);
    }
  });
  recorder_.record(tensors);
  std::swap(gradient_, span_[at(8 * (count - 1) + 2)]);
}

}  // namespace gradkern::chain
