#include "chain/run.hpp"

#include <utility>

#include "base/expects.hpp"
#include "chain/reference.hpp"

namespace gradkern::chain {

void check_shapes(const std::vector<Layer>& layers, const Source& input, std::int64_t batch) {
  base::expects(!layers.empty(), "probe: a net needs at least one layer");
  base::expects(input.size == batch * layers[0].n_in, "probe: x does not fit the first layer");
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Layer& layer = layers[l];
    base::expects(layer.weight.size == layer.n_in * layer.n_out, "probe: weight has the wrong size");
    base::expects(!layer.bias.data || layer.bias.size == layer.n_out, "probe: bias has the wrong size");
    base::expects(l == 0 || layers[l - 1].n_out == layer.n_in, "probe: layers do not chain");
  }
}

Run::Run(const Executor& executor, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
         double loss_scale, bool with_reference, bool keep_tensors, bool measured)
    : recorder_(executor, arithmetic, loss_scale, with_reference, keep_tensors, measured),
      layers_(std::move(layers)),
      input_(input),
      batch_(batch),
      ones_(static_cast<std::size_t>(batch), 1.0f) {
  check_shapes(layers_, input_, batch_);
}

void Run::forward(const Poll& poll) {
  const std::int64_t depth = static_cast<std::int64_t>(layers_.size());
  activations_.resize(at(depth + 1));
  pre_activations_.resize(at(depth));
  recorder_.reserve(8 * depth + 2);
  weights_.resize(at(depth));
  biases_.resize(at(depth));
  Reference input_truth;
  if (recorder_.with_reference()) {
    reference_activations_.resize(at(depth + 1));
    reference_pre_activations_.resize(at(depth));
    input_truth.values = decode_all(recorder_.host(), input_);
    renormalise(input_truth);
  }
  recorder_.given(activations_[0], input_, 1.0, 0, Role::activation, recorder_.known(input_truth));
  recorder_.measure();
  if (recorder_.with_reference()) reference_activations_[0] = std::move(input_truth);
  const bool by_spans = goes_by_spans();
  for (std::int64_t l = 1; l <= depth; l += by_spans ? span : 1) {
    poll(l - 1, 2 * depth);
    if (by_spans) {
      forward_span(l);
    } else {
      forward_layer(l);
    }
  }
}

// The weights of the layer that follows, up or down the chain, where they leave room for others in L2.
Source Run::weight_after(std::int64_t l, std::int64_t step) const {
  constexpr std::int64_t most = 128 * 1024;  // entries
  const std::int64_t next = l + step;
  if (next < 1 || next > static_cast<std::int64_t>(layers_.size()) || layers_[at(next - 1)].weight.size > most)
    return {};
  return layers_[at(next - 1)].weight;
}

void Run::forward_layer(std::int64_t l) {
  const Executor& e = recorder_.host();
  const Layer& layer = layers_[at(l - 1)];
  const bool with_reference = recorder_.with_reference();
  Stored& w = weights_[at(l - 1)];
  Stored& b = biases_[at(l - 1)];
  recorder_.argument(w, layer.weight, l, Role::weight);
  if (layer.bias.data) recorder_.argument(b, layer.bias, l, Role::bias);

  Reference z_truth, h_truth;
  if (with_reference) {
    z_truth = reference_dense(e, reference_activations_[at(l - 1)], layer.weight, layer.bias, batch_, layer.n_out,
                              layer.n_in);
    h_truth = reference_activation(e, z_truth, layer.activation.id, layer.activation.alpha);
  }
  executor::ProductArgs dense =
      product(batch_, layer.n_out, layer.n_in, recorder_.operand(activations_[at(l - 1)], layer.n_in, 1),
              recorder_.operand(w, 1, layer.n_in));
  dense.bias = layer.bias.data ? b.data() : nullptr;
  Stored& z = pre_activations_[at(l - 1)];
  recorder_.products({{&z, dense, l, Role::pre_activation, &z_truth}}, 0);
  recorder_.activate(layer.activation, z, activations_[at(l)], l, recorder_.known(h_truth));
  recorder_.measure(weight_after(l, 1));
  if (with_reference) {
    reference_pre_activations_[at(l - 1)] = std::move(z_truth);
    reference_activations_[at(l)] = std::move(h_truth);
  }
}

void Run::backward(Values gradient, Reference reference_gradient, const Poll& poll) {
  const std::int64_t depth = static_cast<std::int64_t>(layers_.size());
  base::expects(pre_activations_.size() == layers_.size(), "probe: backward before forward");
  base::expects(static_cast<std::int64_t>(gradient.size()) == batch_ * layers_.back().n_out,
                "probe: grad_output does not fit the output");
  recorder_.begin_backward();
  if (recorder_.with_reference()) {
    base::expects(reference_gradient.values.size() == gradient.size(), "probe: the reference gradient does not fit");
    reference_gradient_ = std::move(reference_gradient);
    renormalise(reference_gradient_);
  }
  const Source source{FormatId::float64, gradient.data(), static_cast<std::int64_t>(gradient.size())};
  recorder_.given(gradient_, source, recorder_.loss_scale(), depth, Role::grad_activation,
                  recorder_.known(reference_gradient_));
  recorder_.measure();
  const bool by_spans = goes_by_spans();
  for (std::int64_t l = depth; l >= 1; l -= by_spans ? span : 1) {
    poll(2 * depth - l, 2 * depth);
    if (by_spans) {
      backward_span(l);
    } else {
      backward_layer(l);
    }
  }
  poll(2 * depth, 2 * depth);
}

Reference Run::activation_gradient(std::int64_t l) {
  const Activation activation = layers_[at(l - 1)].activation;
  Reference truth;
  if (recorder_.with_reference()) {
    truth = reference_activation_backward(recorder_.host(), reference_gradient_, reference_pre_activations_[at(l - 1)],
                                          activation.id, activation.alpha);
  }
  recorder_.activate_backward(activation, gradient_, pre_activations_[at(l - 1)], activations_[at(l)], dz_, l,
                              recorder_.known(truth));
  return truth;
}

void Run::backward_layer(std::int64_t l) {
  const Executor& e = recorder_.host();
  const Layer& layer = layers_[at(l - 1)];
  const std::int64_t n_in = layer.n_in, n_out = layer.n_out;
  const Reference dz_truth = activation_gradient(l);

  Reference dw_truth, db_truth, dh_truth;
  if (recorder_.with_reference()) {
    const Reference ones{Values(at(batch_), 1.0), 0};
    const Reference& h = reference_activations_[at(l - 1)];
    const executor::Operand w{layer.weight.format, layer.weight.data, n_in, 1};
    reference_products(
        e, {{&dw_truth, columns_of(dz_truth, n_out), rows_of(h, n_in), n_out, n_in, batch_,
             dz_truth.exponent + h.exponent},
            {&db_truth, rows_of(ones, batch_), rows_of(dz_truth, n_out), 1, n_out, batch_, dz_truth.exponent},
            {&dh_truth, rows_of(dz_truth, n_out), w, batch_, n_in, n_out, dz_truth.exponent}});
  }
  const Stored& h = activations_[at(l - 1)];
  std::vector<Recorder::Product> list{
      {&dw_, product(n_out, n_in, batch_, recorder_.operand(dz_, 1, n_out), recorder_.operand(h, n_in, 1)), l,
       Role::grad_weight, &dw_truth}};
  if (layer.bias.data) {
    const executor::Operand sum{FormatId::float32, ones_.data(), batch_, 1};
    list.push_back(
        {&db_, product(1, n_out, batch_, sum, recorder_.operand(dz_, n_out, 1)), l, Role::grad_bias, &db_truth});
  }
  list.push_back(
      {&next_gradient_,
       product(batch_, n_in, n_out, recorder_.operand(dz_, n_out, 1), recorder_.operand(weights_[at(l - 1)], n_in, 1)),
       l - 1, Role::grad_activation, &dh_truth});
  recorder_.products(std::move(list), recorder_.log2_loss_scale());
  recorder_.measure(weight_after(l, -1));
  std::swap(gradient_, next_gradient_);
  reference_gradient_ = std::move(dh_truth);
}

Values Run::output() const {
  const Stored& h = activations_.back();
  return decode_all(recorder_.host(), {h.format, h.data(), h.size});
}

}  // namespace gradkern::chain
