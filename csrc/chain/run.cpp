#include "chain/run.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/expects.hpp"
#include "chain/reference.hpp"

namespace gradkern::chain {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Roles whose tensors follow one another along the chain, so that a value can stall.
bool shows_stalls(Role role) {
  return role == Role::pre_activation || role == Role::activation || role == Role::grad_activation ||
         role == Role::grad_pre_activation;
}

// What rounding did to a tensor that was in storage already.
ops::RoundingCounts unchanged(const Summary& s) {
  using formats::Event;
  ops::RoundingCounts counts;
  const auto set = [&](Event event, std::int64_t count) { counts.events[static_cast<int>(event)] = count; };
  set(Event::nan, s.nan);
  set(Event::inf, s.pos_inf + s.neg_inf);
  set(Event::subnormal, s.subnormal);
  set(Event::exact, s.size - s.nan - s.pos_inf - s.neg_inf - s.subnormal);
  counts.signal = s.moments.squares;
  return counts;
}

}  // namespace

Run::Run(const Executor& executor, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
         double loss_scale, bool with_reference, bool keep_tensors, bool measured)
    : executor_(executor),
      arithmetic_(arithmetic),
      layers_(std::move(layers)),
      input_(input),
      batch_(batch),
      loss_scale_(loss_scale),
      log2_loss_scale_(std::log2(loss_scale)),
      with_reference_(with_reference),
      keep_tensors_(keep_tensors),
      measured_(measured),
      ones_(static_cast<std::size_t>(batch), 1.0f) {
  base::expects(!layers_.empty(), "probe: a net needs at least one layer");
  base::expects(measured || !(with_reference || keep_tensors), "probe: only what is measured has a reference");
  base::expects(input_.size == batch_ * layers_[0].n_in, "probe: x does not fit the first layer");
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    base::expects(layer.weight.size == layer.n_in * layer.n_out, "probe: weight has the wrong size");
    base::expects(!layer.bias.data || layer.bias.size == layer.n_out, "probe: bias has the wrong size");
    base::expects(l == 0 || layers_[l - 1].n_out == layer.n_in, "probe: layers do not chain");
  }
}

executor::Operand Run::operand(const Stored& s, std::int64_t row_stride, std::int64_t column_stride) const {
  return {s.format, s.data(), row_stride, column_stride};
}

void Run::round(Stored& stored, const Source& wide, double scale, const Rounded& how, ops::RoundingCounts& counts) {
  stored.resize(arithmetic_.storage, wide.size);
  executor_.convert(executor_, {wide.size, wide.format, arithmetic_.storage, wide.data, stored.writable(), scale,
                                how.mode, how.stream, measured_ ? &counts : nullptr});
}

bool Run::is_storage(FormatId format) const {
  return format == arithmetic_.storage && arithmetic_.mode.subnormals == formats::Subnormals::keep;
}

Stored& Run::wide_for(Stored& result, Stored& scratch, FormatId format, std::int64_t size) {
  Stored& wide = is_storage(format) ? result : scratch;
  wide.resize(format, size);
  return wide;
}

void Run::store(Stored& stored, const Source& wide, double scale, std::int64_t layer, Role role,
                const Reference* reference, double log2_scale, const AttributionOf& attribution_of) {
  Record record{layer, role, {}, {}, {}, {}, 0, 0, {}, {}};
  const Rounded how{arithmetic_.mode, stream_++};
  const bool in_place = wide.data == stored.data();
  if (!in_place) round(stored, wide, scale, how, record.rounding);
  if (reference) {
    record.attribution = attribution_of(wide, stored, how, *reference);
    record.reference_exponent = reference->exponent;
    record.relative_error = relative_error(executor_, stored, log2_scale, *reference);
    if (shows_stalls(role))
      record.attribution.stalled =
          stalled_since(before_[static_cast<int>(role)], stored, *reference, record.attribution);
  }
  if (keep_tensors_) {
    record.tensor.assign(stored);
    if (reference) record.truth = *reference;
  }
  if (measured_) pending_.push_back({records_.size(), &stored, reference, in_place});
  records_.push_back(std::move(record));
}

// Only subnormal values stall: where there are none, nothing is kept to compare with.
std::int64_t Run::stalled_since(Before& before, const Stored& stored, const Reference& reference,
                                const Attribution& attribution) {
  if (attribution.counts[static_cast<int>(Fate::subnormal)] == 0) {
    before = {};
    return 0;
  }
  const std::int64_t stalled = count_stalled(stored, reference, before.stored, before.reference);
  before.stored.assign(stored);
  before.reference = reference;
  return stalled;
}

void Run::drop_payloads(Stored& stored, Record& record) {
  ops::RoundingCounts counts;
  round(stored, stored.source(), 1, {arithmetic_.mode, 0}, counts);
  if (keep_tensors_) record.tensor.assign(stored);
}

void Run::measure_pending() {
  if (pending_.empty()) return;
  std::vector<Source> tensors;
  for (const Pending& p : pending_) {
    tensors.push_back(p.stored->source());
    if (p.reference) tensors.push_back({FormatId::float64, p.reference->values.data(), p.stored->size});
  }
  std::vector<Summary> summaries = summarise(executor_, tensors);
  auto next = summaries.begin();
  for (const Pending& p : pending_) {
    Record& record = records_[p.record];
    record.stored = std::move(*next++);
    if (p.in_place) record.rounding = unchanged(record.stored);
    if (p.stored->given && record.stored.nan) drop_payloads(*p.stored, record);
    if (p.reference) record.reference = std::move(*next++);
  }
  pending_.clear();
}

void Run::store_given(Stored& stored, const Source& source, double scale, std::int64_t layer, Role role,
                      const Reference* reference) {
  if (is_storage(source.format) && scale == 1) stored.borrow(source);
  store(stored, source, scale, layer, role, reference, std::log2(scale),
        [&](const Source& given, const Stored& s, const Rounded& how, const Reference& r) {
          return attribute_given(executor_, given, scale, s, how, r);
        });
}

void Run::products(std::vector<Product> list, double log2_scale) {
  std::vector<executor::ProductArgs> args;
  wide_.resize(std::max(wide_.size(), list.size()));
  for (std::size_t i = 0; i < list.size(); ++i) {
    Product& p = list[i];
    // A bias gradient is a sum, not a product: nothing is rounded to an operand format.
    p.args.operands = p.role == Role::grad_bias ? arithmetic_.storage : arithmetic_.operands;
    p.args.accumulate = arithmetic_.accumulate;
    p.args.bias_format = arithmetic_.storage;
    p.wide = &wide_for(*p.result, wide_[i], executor::wide_format(arithmetic_.accumulate), p.args.m * p.args.n);
    p.args.wide = p.wide->writable();
    args.push_back(p.args);
  }
  executor_.products(executor_, args.data(), static_cast<std::int64_t>(args.size()));
  for (const Product& p : list)
    store(*p.result, p.wide->source(), 1.0, p.layer, p.role, with_reference_ ? p.reference : nullptr, log2_scale,
          [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
            return attribute_product(p.args, values, s, how, r);
          });
}

void Run::forward(const Poll& poll) {
  const std::int64_t depth = static_cast<std::int64_t>(layers_.size());
  activations_.resize(at(depth + 1));
  pre_activations_.resize(at(depth));
  records_.reserve(at(8 * depth + 2));
  weights_.resize(at(depth));
  biases_.resize(at(depth));
  if (with_reference_) {
    reference_activations_.resize(at(depth + 1));
    reference_pre_activations_.resize(at(depth));
    reference_activations_[0].values = decode_all(executor_, input_);
    renormalise(reference_activations_[0]);
  }
  store_given(activations_[0], input_, 1.0, 0, Role::activation,
              with_reference_ ? &reference_activations_[0] : nullptr);
  measure_pending();
  for (std::int64_t l = 1; l <= depth; ++l) {
    poll(l - 1, 2 * depth);
    forward_layer(l);
  }
}

void Run::forward_layer(std::int64_t l) {
  const Layer& layer = layers_[at(l - 1)];
  Reference weight_truth, bias_truth;
  if (with_reference_) weight_truth.values = decode_all(executor_, layer.weight);
  if (with_reference_ && layer.bias.data) bias_truth.values = decode_all(executor_, layer.bias);
  const auto known = [&](const Reference& r) { return with_reference_ ? &r : nullptr; };

  Stored& w = weights_[at(l - 1)];
  Stored& b = biases_[at(l - 1)];
  store_given(w, layer.weight, 1.0, l, Role::weight, known(weight_truth));
  if (layer.bias.data) store_given(b, layer.bias, 1.0, l, Role::bias, known(bias_truth));

  Reference z_truth, h_truth;
  if (with_reference_) {
    z_truth = reference_dense(executor_, reference_activations_[at(l - 1)], weight_truth.values, bias_truth.values,
                              batch_, layer.n_out, layer.n_in);
    h_truth = reference_activation(executor_, z_truth, layer.activation, layer.alpha);
  }
  executor::ProductArgs dense{};
  dense.m = batch_;
  dense.n = layer.n_out;
  dense.k = layer.n_in;
  dense.a = operand(activations_[at(l - 1)], layer.n_in, 1);
  dense.b = operand(w, 1, layer.n_in);
  dense.bias = layer.bias.data ? b.data() : nullptr;
  Stored& z = pre_activations_[at(l - 1)];
  products({{&z, dense, l, Role::pre_activation, &z_truth}}, 0);

  Stored& wide = wide_for(activations_[at(l)], wide_[0], executor::wide_format(arithmetic_.storage), z.size);
  executor::ActivationArgs args{};
  args.size = z.size;
  args.activation = layer.activation;
  args.alpha = layer.alpha;
  args.format = arithmetic_.storage;
  args.pre_activation = z.data();
  args.wide = wide.writable();
  executor_.activation_forward(executor_, args);
  store(activations_[at(l)], wide.source(), 1.0, l, Role::activation, known(h_truth), 0,
        [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
          return attribute_activation(args, values, s, how, r);
        });

  measure_pending();
  if (with_reference_) {
    reference_pre_activations_[at(l - 1)] = std::move(z_truth);
    reference_activations_[at(l)] = std::move(h_truth);
    reference_weights_.push_back(std::move(weight_truth.values));
  }
}

void Run::backward(std::vector<double> gradient, Reference reference_gradient, const Poll& poll) {
  const std::int64_t depth = static_cast<std::int64_t>(layers_.size());
  base::expects(pre_activations_.size() == layers_.size(), "probe: backward before forward");
  base::expects(static_cast<std::int64_t>(gradient.size()) == batch_ * layers_.back().n_out,
                "probe: grad_output does not fit the output");
  for (Before& before : before_) before = {};
  if (with_reference_) {
    base::expects(reference_gradient.values.size() == gradient.size(), "probe: the reference gradient does not fit");
    reference_gradient_ = std::move(reference_gradient);
    renormalise(reference_gradient_);
  }
  const Source source{FormatId::float64, gradient.data(), static_cast<std::int64_t>(gradient.size())};
  store_given(gradient_, source, loss_scale_, depth, Role::grad_activation,
              with_reference_ ? &reference_gradient_ : nullptr);
  measure_pending();
  for (std::int64_t l = depth; l >= 1; --l) {
    poll(2 * depth - l, 2 * depth);
    backward_layer(l);
  }
  poll(2 * depth, 2 * depth);
}

Reference Run::activation_gradient(std::int64_t l) {
  const Layer& layer = layers_[at(l - 1)];
  Reference truth;
  if (with_reference_) {
    truth = reference_activation_backward(executor_, reference_gradient_, reference_pre_activations_[at(l - 1)],
                                          layer.activation, layer.alpha);
  }
  const FormatId computed_in = executor::wide_format(arithmetic_.storage);
  Stored& wide = wide_for(dz_, wide_[0], computed_in, gradient_.size);
  executor::ActivationArgs args{};
  args.size = gradient_.size;
  args.activation = layer.activation;
  args.alpha = layer.alpha;
  args.format = arithmetic_.storage;
  args.pre_activation = pre_activations_[at(l - 1)].data();
  args.grad_output = gradient_.data();
  args.output = arithmetic_.stored_output_derivative ? activations_[at(l)].data() : nullptr;
  args.wide = wide.writable();
  if (with_reference_) {
    slope_.resize(computed_in, gradient_.size);
    args.slope = slope_.writable();
  }
  executor_.activation_backward(executor_, args);
  store(dz_, wide.source(), 1.0, l, Role::grad_pre_activation, with_reference_ ? &truth : nullptr, log2_loss_scale_,
        [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
          return attribute_activation(args, values, s, how, r);
        });
  return truth;
}

void Run::backward_layer(std::int64_t l) {
  const Layer& layer = layers_[at(l - 1)];
  const std::int64_t n_in = layer.n_in, n_out = layer.n_out;
  const Reference dz_truth = activation_gradient(l);

  const std::vector<double> ones(with_reference_ ? at(batch_) : 0, 1.0);
  Reference dw_truth, db_truth, dh_truth;
  if (with_reference_) {
    const Reference& h = reference_activations_[at(l - 1)];
    const double* d = dz_truth.values.data();
    dw_truth = reference_product(executor_, {d, 1, n_out}, {h.values.data(), n_in, 1}, n_out, n_in, batch_,
                                 dz_truth.exponent + h.exponent);
    db_truth =
        reference_product(executor_, {ones.data(), batch_, 1}, {d, n_out, 1}, 1, n_out, batch_, dz_truth.exponent);
    dh_truth = reference_product(executor_, {d, n_out, 1}, {reference_weights_[at(l - 1)].data(), n_in, 1}, batch_,
                                 n_in, n_out, dz_truth.exponent);
  }
  const auto args = [](std::int64_t m, std::int64_t n, std::int64_t k, executor::Operand a, executor::Operand b) {
    executor::ProductArgs p{};
    p.m = m;
    p.n = n;
    p.k = k;
    p.a = a;
    p.b = b;
    return p;
  };
  std::vector<Product> list{
      {&dw_, args(n_out, n_in, batch_, operand(dz_, 1, n_out), operand(activations_[at(l - 1)], n_in, 1)), l,
       Role::grad_weight, &dw_truth}};
  if (layer.bias.data) {
    const executor::Operand sum{FormatId::float32, ones_.data(), batch_, 1};
    list.push_back({&db_, args(1, n_out, batch_, sum, operand(dz_, n_out, 1)), l, Role::grad_bias, &db_truth});
  }
  list.push_back({&next_gradient_,
                  args(batch_, n_in, n_out, operand(dz_, n_out, 1), operand(weights_[at(l - 1)], n_in, 1)), l - 1,
                  Role::grad_activation, &dh_truth});
  products(std::move(list), log2_loss_scale_);
  measure_pending();
  std::swap(gradient_, next_gradient_);
  reference_gradient_ = std::move(dh_truth);
}

std::vector<double> Run::output() const {
  const Stored& h = activations_.back();
  return decode_all(executor_, {h.format, h.data(), h.size});
}

}  // namespace gradkern::chain
