// A probe: forward and backward through the layers in a chosen arithmetic, the reference chain beside it, and one
// record per layer and role of what every rounding did. See the arithmetic contract for the rounding points.
//
//   forward    z_l = fl(h_{l-1} W_l^T + b_l),  h_l = fl(phi(z_l)),  h_0 = fl(x)
//   backward   dz_l = fl(dh_l phi'(z_l)),  dW_l = fl(dz_l^T h_{l-1}),  db_l = fl(sum_i dz_l[i]),
//              dh_{l-1} = fl(dz_l W_l)
// with dh_L = fl(loss gradient times loss scale), given by the caller.
#pragma once

#include <vector>

#include "chain/recorder.hpp"

namespace gradkern::chain {

struct Layer {
  std::int64_t n_in, n_out;
  Source weight, bias;  // (n_out, n_in), (n_out,) or no bias: data null
  Activation activation;
};

class Run {
 public:
  // Without measuring, records hold nothing but layer and role: what measuring costs is the difference.
  Run(const Executor& executor, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
      double loss_scale, bool with_reference, bool keep_tensors, bool measured);

  // What the run holds when it holds most, from the shapes: tensors, working space and records.
  std::int64_t planned_bytes() const;

  void forward(const Poll& poll);
  // gradient: of the loss with respect to the stored output, before the loss scale; reference_gradient * 2^exponent
  // likewise.
  void backward(std::vector<double> gradient, Reference reference_gradient, const Poll& poll);

  std::vector<double> output() const;
  const Reference& reference_output() const { return reference_activations_.back(); }
  const std::vector<Record>& records() const { return recorder_.records(); }
  std::vector<Record> take_records() { return recorder_.take_records(); }

 private:
  // Samples need one another in no layer: see chain/run_span.cpp.
  bool goes_by_spans() const;
  template <class Body>
  void for_rows(Body body) const;
  Stored& wide_of(Stored& stored, Stored& apart, FormatId format) const;
  void forward_span(std::int64_t first);
  void backward_span(std::int64_t last);
  static constexpr std::int64_t span = 16;  // layers whose tensors stay in L2
  void forward_layer(std::int64_t l);
  void backward_layer(std::int64_t l);
  Reference activation_gradient(std::int64_t l);

  Recorder recorder_;
  std::vector<Layer> layers_;
  Source input_;
  std::int64_t batch_;
  std::vector<float> ones_;  // batch of them

  std::vector<Stored> weights_, biases_, pre_activations_, activations_;
  std::vector<Reference> reference_pre_activations_, reference_activations_;
  std::vector<std::vector<double>> reference_weights_;
  Stored gradient_;                      // dh of the layer in work
  Stored dz_, dw_, db_, next_gradient_;  // likewise
  std::vector<Stored> span_;             // gradients of a span of layers
  Reference reference_gradient_;
};

}  // namespace gradkern::chain
