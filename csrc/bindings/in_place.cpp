#include "bindings/in_place.hpp"

#include "bindings/dlpack.hpp"

namespace gradkern::bindings {
namespace {

using executor::ClipTensor;
using formats::FormatId;

constexpr int ready = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
                      py::detail::npy_api::NPY_ARRAY_WRITEABLE_;

std::optional<ClipTensor> plain_array(py::handle x, const std::map<int, int>& formats) {
  const auto* array = py::detail::array_proxy(x.ptr());
  if ((array->flags & ready) != ready) return {};
  const auto dtype = py::reinterpret_borrow<py::dtype>(array->descr);
  const auto format = formats.find(dtype.num());
  if (format == formats.end() || !(dtype.byteorder() == '=' || dtype.byteorder() == '|')) return {};
  std::int64_t size = 1;
  for (int d = 0; d < array->nd; ++d) size *= array->dimensions[d];
  return ClipTensor{size, format_from(format->second), array->data, array->data};
}

std::optional<FormatId> format_of(dlpack::DataType type) {
  static constexpr struct {
    dlpack::TypeCode code;
    int bits;
    FormatId format;
  } stored[] = {{dlpack::code_float, 64, FormatId::float64},
                {dlpack::code_float, 32, FormatId::float32},
                {dlpack::code_float, 16, FormatId::float16},
                {dlpack::code_bfloat, 16, FormatId::bfloat16},
                {dlpack::code_float8_e4m3fn, 8, FormatId::float8_e4m3fn},
                {dlpack::code_float8_e5m2, 8, FormatId::float8_e5m2}};
  for (const auto& s : stored)
    if (s.code == type.code && s.bits == type.bits && type.lanes == 1) return s.format;
  return {};
}

// Entries, if they lie one after another in the order of their indices.
std::optional<std::int64_t> contiguous_size(const dlpack::Tensor& t) {
  std::int64_t size = 1;
  bool dense = true;
  for (int d = t.ndim - 1; d >= 0; --d) {
    dense = dense && (t.shape[d] == 1 || t.strides == nullptr || t.strides[d] == size);
    size *= t.shape[d];
  }
  if (!dense && size != 0) return {};
  return size;
}

// The type's own table of functions, and its method that says whether a tensor's entries are to be read as negated:
// DLPack itself does not tell.
class Exchange {
 public:
  explicit Exchange(const py::object& type) : type_(type.ptr()) {
    if (type.is_none()) return;
    const py::object capsule = py::getattr(type, dlpack::ExchangeApi::attribute, py::none());
    is_negated_ = py::getattr(type, "is_neg", py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), dlpack::ExchangeApi::name) || is_negated_.is_none()) return;
    const auto* api =
        static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::ExchangeApi::name));
    while (api != nullptr && api->major != dlpack::major_version) api = api->previous;
    if (api != nullptr) to_tensor_ = api->to_tensor;
  }

  bool serves(py::handle x) const {
    return to_tensor_ != nullptr && reinterpret_cast<PyObject*>(Py_TYPE(x.ptr())) == type_;
  }

  std::optional<ClipTensor> tensor(py::handle x) const {
    const auto negated = py::reinterpret_steal<py::object>(PyObject_CallOneArg(is_negated_.ptr(), x.ptr()));
    dlpack::Tensor t;
    if (!negated || (negated.ptr() == Py_False && to_tensor_(x.ptr(), &t) != 0)) {
      PyErr_Clear();  // the caller's other way says what is wrong with it
      return {};
    }
    if (negated.ptr() != Py_False || t.device.type != dlpack::cpu) return {};
    const auto format = format_of(t.dtype);
    const auto size = contiguous_size(t);
    if (!format || !size) return {};
    if (*size == 0) return ClipTensor{0, *format, nullptr, nullptr};
    char* data = static_cast<char*>(t.data);
    if (data == nullptr) return {};
    data += t.byte_offset;
    if (reinterpret_cast<std::uintptr_t>(data) % (t.dtype.bits / 8U) != 0) return {};
    return ClipTensor{*size, *format, data, data};
  }

 private:
  PyObject* type_;
  py::object is_negated_;
  int (*to_tensor_)(void*, dlpack::Tensor*) = nullptr;
};

}  // namespace

std::optional<std::vector<ClipTensor>> plain_arrays(const py::list& arrays, const std::map<int, int>& formats,
                                                    const py::object& tensor_type) {
  const auto* numpy = reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_);
  const Exchange exchange(tensor_type);
  std::vector<ClipTensor> found;
  found.reserve(arrays.size());
  for (const py::handle x : arrays) {
    std::optional<ClipTensor> tensor;
    if (reinterpret_cast<PyObject*>(Py_TYPE(x.ptr())) == numpy) tensor = plain_array(x, formats);
    if (exchange.serves(x)) tensor = exchange.tensor(x);
    if (!tensor) return {};
    found.push_back(*tensor);
  }
  return found;
}

}  // namespace gradkern::bindings
