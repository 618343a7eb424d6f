// What a probe offers, wherever it runs: forward and backward through the layers in a chosen arithmetic, and one record
// per layer and role of what every rounding did. See the arithmetic contract for the rounding points.
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

class Probe {
 public:
  virtual ~Probe() = default;

  // What the run holds when it holds most, from the shapes: tensors, working space and records.
  virtual std::int64_t planned_bytes() const = 0;

  virtual void forward(const Poll& poll) = 0;
  // gradient: of the loss with respect to the stored output, before the loss scale; reference_gradient * 2^exponent
  // likewise.
  virtual void backward(Values gradient, Reference reference_gradient, const Poll& poll) = 0;

  virtual Values output() const = 0;
  virtual const Reference& reference_output() const = 0;
  virtual std::vector<Record> take_records() = 0;
};

// Throws where the shapes do not fit one another.
void check_shapes(const std::vector<Layer>& layers, const Source& input, std::int64_t batch);

// What one record holds, typically.
std::int64_t record_bytes(bool with_reference);

}  // namespace gradkern::chain
