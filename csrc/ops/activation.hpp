// Activations phi and their derivatives, each formula once, for float, double and vectors of them.
//
//   forward(z)            phi(z)
//   derivative(z)         phi'(z), cancellation-free: sigma'(z) = e / (1 + e)^2 with e = exp(-|z|), never h (1 - h)
//   stored_derivative(h)  phi' formed from the stored output h, as frameworks do; derivative(z) where they use z
//
// Evaluated in float32 (float64 for float64 storage); at a kink the derivative is that of the left side: relu'(0) = 0.
// alpha is leaky_relu's slope and elu's alpha. NaN in, NaN out, but for identity' = 1.
#pragma once

#include "ops/elementary.hpp"
#include "ops/number.hpp"

namespace gradkern::ops {

enum class ActivationId : int {
  identity,
  relu,
  leaky_relu,
  elu,
  selu,
  sigmoid,
  tanh,
  softplus,
  gelu,
  gelu_tanh,
  silu,
  mish
};

inline constexpr const char* activation_names[] = {"identity", "relu",     "leaky_relu", "elu",       "selu", "sigmoid",
                                                   "tanh",     "softplus", "gelu",       "gelu_tanh", "silu", "mish"};
inline constexpr int activation_count = 12;

// Whether frameworks form the derivative from the stored output rather than from z.
template <class A>
inline constexpr bool uses_output = A::uses_output;

struct identity {
  static constexpr bool uses_output = false;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return z;
  }
  template <class V>
  static GRADKERN_HD V derivative(V, V) {
    return V(1);
  }
};

// One of two values by the sign of z, NaN kept. z = 0 counts as not positive.
template <class V>
GRADKERN_HD V by_sign(V z, V positive, V otherwise) {
  return select(z > V(0), positive, select(z <= V(0), otherwise, z));
}

// z with the infinities replaced by the largest finite value, so that a limit of zero is not lost to 0 * inf.
template <class V>
GRADKERN_HD V finite(V z) {
  const V largest(sizeof(scalar_t<V>) == 4 ? scalar_t<V>(0x1.fffffep127) : scalar_t<V>(0x1.fffffffffffffp1023));
  return select(abs(z) > largest, copysign(largest, z), z);
}

// z * gate(z) where the gate vanishes as z -> -inf.
template <class V>
GRADKERN_HD V gated(V z, V gate) {
  return select(z < V(0), finite(z), z) * gate;
}

struct relu {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return by_sign(z, z, V(0));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return by_sign(z, V(1), V(0));
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V) {
    return by_sign(h, V(1), V(0));
  }
};

struct leaky_relu {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V alpha) {
    return by_sign(z, z, alpha * z);
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V alpha) {
    return by_sign(z, V(1), alpha);
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V alpha) {
    return by_sign(h, V(1), alpha);
  }
};

struct elu {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V alpha) {
    return by_sign(z, z, alpha * expm1(z));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V alpha) {
    return by_sign(z, V(1), alpha * exp(z));
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V alpha) {
    return by_sign(h, V(1), h + alpha);
  }
};

// Klambauer, Unterthiner, Mayr, Hochreiter 2017.
struct selu {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V lambda() {
    return V(scalar_t<V>(1.0507009873554804934193349852946));
  }
  template <class V>
  static GRADKERN_HD V lambda_alpha() {
    return V(scalar_t<V>(1.7580993408473768599402175208123));
  }
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return by_sign(z, lambda<V>() * z, lambda_alpha<V>() * expm1(z));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return by_sign(z, lambda<V>(), lambda_alpha<V>() * exp(z));
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V) {
    return by_sign(h, lambda<V>(), h + lambda_alpha<V>());
  }
};

struct sigmoid_activation {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return sigmoid(z);
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return sigmoid_derivative(z);
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V) {
    return h * (V(1) - h);
  }
};

struct tanh_activation {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return tanh(z);
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return tanh_derivative(z);
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V) {
    return V(1) - h * h;
  }
};

// log(1 + e^z) = max(z, 0) + log1p(exp(-|z|)); from the output, phi' = 1 - e^-h.
struct softplus {
  static constexpr bool uses_output = true;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return by_sign(z, z, V(0)) + log1p(exp(-abs(z)));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return sigmoid(z);
  }
  template <class V>
  static GRADKERN_HD V stored_derivative(V h, V) {
    return -expm1(-h);
  }
};

// z Phi(z), Hendrycks and Gimpel 2016.
struct gelu {
  static constexpr bool uses_output = false;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return gated(z, normal_cdf(z));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return fma(finite(z), normal_pdf(z), normal_cdf(z));
  }
};

// z (1 + tanh(u)) / 2 = z sigma(2u), u = sqrt(2/pi) (z + 0.044715 z^3): the sigmoid form does not cancel for z < 0.
// sigma(2u) magnifies an error of 2u by |2u|, so 2u is held in two words.
struct gelu_tanh {
  static constexpr bool uses_output = false;
  static constexpr double linear = 1.5957691216057308, cubic = 0.07135481627260025;
  static constexpr double linear_rest = -9.96930880911092e-17, cubic_rest = -6.175149918155315e-19;

  template <class V>
  struct Argument {
    V high, low;
  };

  // A constant in the two words of the lane type.
  template <class V>
  static GRADKERN_HD Argument<V> split(double value, double rest) {
    const auto high = static_cast<scalar_t<V>>(value);
    return {V(high), V(static_cast<scalar_t<V>>((value - high) + rest))};
  }

  template <class V>
  static GRADKERN_HD Argument<V> twice_u(V z) {
    const Argument<V> a = split<V>(linear, linear_rest), b = split<V>(cubic, cubic_rest);
    const V square = z * z, square_low = fma(z, z, -square);
    const V product = b.high * square;
    const V product_low = fma(b.high, square, -product) + fma(b.high, square_low, b.low * square);
    const V sum = a.high + product, part = sum - a.high;
    const V sum_low = ((a.high - (sum - part)) + (product - part)) + (product_low + a.low);
    const V high = z * sum;
    return {high, fma(z, sum, -high) + z * sum_low};
  }

  // Beyond, sigma(2u) is 0 or 1 to the last bit, its derivative is zero, and z^3 may overflow.
  template <class V>
  static GRADKERN_HD V bounded(V z) {
    return select(abs(z) > V(64), copysign(V(64), z), z);
  }

  template <class V>
  static GRADKERN_HD V gate(Argument<V> u) {
    return sigmoid(u.high) * fma(u.low, sigmoid(-u.high), V(1));
  }

  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return gated(z, gate(twice_u(bounded(z))));
  }

  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    const V x = bounded(z);
    const Argument<V> u = twice_u(x);
    const V slope = fma(x * x, V(static_cast<scalar_t<V>>(3 * cubic)), V(static_cast<scalar_t<V>>(linear)));
    const V bend = sigmoid_derivative(u.high) * fma(u.low, sigmoid(-u.high) - sigmoid(u.high), V(1));
    return fma(x * bend, slope, gate(u));
  }
};

struct silu {
  static constexpr bool uses_output = false;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    return gated(z, sigmoid(z));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    return fma(finite(z), sigmoid_derivative(z), sigmoid(z));
  }
};

// z tanh(softplus(z)), Misra 2019. With f = exp(-|z|), t = tanh(softplus(z)) and 1 - t^2 are rational in f.
struct mish {
  static constexpr bool uses_output = false;
  template <class V>
  static GRADKERN_HD V forward(V z, V) {
    const V f = exp(-abs(z));
    const V positive = fma(V(2), f, V(1)) / fma(V(2) * f, f + V(1), V(1));
    const V negative = f * (f + V(2)) / fma(f, f + V(2), V(2));
    return gated(z, by_sign(z, positive, negative));
  }
  template <class V>
  static GRADKERN_HD V derivative(V z, V) {
    const V f = exp(-abs(z));
    const V positive_denominator = fma(V(2) * f, f + V(1), V(1));
    const V negative_denominator = fma(f, f + V(2), V(2));
    const V t = by_sign(z, fma(V(2), f, V(1)) / positive_denominator, f * (f + V(2)) / negative_denominator);
    const V root = V(2) * (f + V(1)) / by_sign(z, positive_denominator, negative_denominator);
    const V gap = by_sign(z, root * f, root);  // 1 - t^2 = gap^2
    return fma(finite(z) * gap, gap * sigmoid(z), t);
  }
};

template <class A, class V>
GRADKERN_HD V derivative_from_output(V z, V h, V alpha) {
  if constexpr (uses_output<A>) {
    return A::stored_derivative(h, alpha);
  } else {
    return A::derivative(z, alpha);
  }
}

// Calls visitor(A{}) with the activation of this id.
template <class Visitor>
GRADKERN_HD void visit_activation(ActivationId id, Visitor&& visitor) {
  switch (id) {
    case ActivationId::identity:
      return visitor(identity{});
    case ActivationId::relu:
      return visitor(relu{});
    case ActivationId::leaky_relu:
      return visitor(leaky_relu{});
    case ActivationId::elu:
      return visitor(elu{});
    case ActivationId::selu:
      return visitor(selu{});
    case ActivationId::sigmoid:
      return visitor(sigmoid_activation{});
    case ActivationId::tanh:
      return visitor(tanh_activation{});
    case ActivationId::softplus:
      return visitor(softplus{});
    case ActivationId::gelu:
      return visitor(gelu{});
    case ActivationId::gelu_tanh:
      return visitor(gelu_tanh{});
    case ActivationId::silu:
      return visitor(silu{});
    case ActivationId::mish:
      return visitor(mish{});
  }
}

}  // namespace gradkern::ops
