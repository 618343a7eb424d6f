// The probe that works through one layer after the other on any executor, with the reference chain beside it on request.
#pragma once

#include <vector>

#include "chain/probe.hpp"

namespace gradkern::chain {

class Run final : public Probe {
 public:
  // Without measuring, records hold nothing but layer and role: what measuring costs is the difference.
  Run(const Executor& executor, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
      double loss_scale, bool with_reference, bool keep_tensors, bool measured);

  std::int64_t planned_bytes() const override;
  void forward(const Poll& poll) override;
  void backward(Values gradient, Reference reference_gradient, const Poll& poll) override;

  Values output() const override;
  const Reference& reference_output() const override { return reference_activations_.back(); }
  const std::vector<Record>& records() const { return recorder_.records(); }
  std::vector<Record> take_records() override { return recorder_.take_records(); }

 private:
  // Samples need one another in no layer: see chain/run_span.cpp.
  bool goes_by_spans() const;
  template <class Body>
  void for_rows(Body body) const;
  Stored& wide_of(Stored& stored, Stored& apart, FormatId format) const;
  void forward_span(std::int64_t first);
  void backward_span(std::int64_t last);
  static constexpr std::int64_t span = 16;  // layers whose tensors stay in L2
  Source weight_after(std::int64_t l, std::int64_t step) const;
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
  Stored gradient_;                      // dh of the layer in work
  Stored dz_, dw_, db_, next_gradient_;  // likewise
  std::vector<Stored> span_;             // gradients of a span of layers
  Reference reference_gradient_;
};

}  // namespace gradkern::chain
