// DLPack capsules as NumPy arrays of raw bits, bfloat16 and float8 included, which NumPy itself refuses.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/device_array.hpp"

namespace gradkern::bindings {

std::string type_name(dlpack::DataType type) {
  const std::string bits = std::to_string(type.bits);
  const bool integer_width = type.bits == 8 || type.bits == 16 || type.bits == 32 || type.bits == 64;
  if (type.lanes == 1) {
    if (type.code == dlpack::code_int && integer_width) return "int" + bits;
    if (type.code == dlpack::code_uint && integer_width) return "uint" + bits;
    if (type.code == dlpack::code_float && integer_width && type.bits != 8) return "float" + bits;
    if (type.code == dlpack::code_bfloat && type.bits == 16) return "bfloat16";
    if (type.code == dlpack::code_bool && type.bits == 8) return "bool";
    if (type.code == dlpack::code_float8_e4m3fn && type.bits == 8) return "float8_e4m3fn";
    if (type.code == dlpack::code_float8_e5m2 && type.bits == 8) return "float8_e5m2";
  }
  throw py::type_error("DLPack data type not supported: code " + std::to_string(type.code) + ", " + bits + " bits, " +
                       std::to_string(type.lanes) + " lanes");
}

namespace {

using Owner = std::unique_ptr<void, void (*)(void*)>;

template <class Managed>
void destroy(void* managed) {
  auto* m = static_cast<Managed*>(managed);
  if (m->deleter != nullptr) m->deleter(m);
}

// Takes the tensor out of its capsule, whose own destructor then leaves it alone: from here the deleter is ours to call.
template <class Managed>
std::pair<Managed*, Owner> consume(const py::object& capsule) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), Managed::name));
  if (managed == nullptr || PyCapsule_SetName(capsule.ptr(), Managed::used_name) != 0) throw py::error_already_set();
  return {managed, Owner(managed, &destroy<Managed>)};
}

std::string device_name(dlpack::Device device) {
  static constexpr std::pair<int, const char*> names[] = {{2, "CUDA"},  {4, "OpenCL"},     {7, "Vulkan"}, {8, "Metal"},
                                                          {10, "ROCm"}, {11, "ROCm host"}, {14, "oneAPI"}};
  for (const auto& [type, name] : names) {
    if (type == device.type) return std::string(name) + " device " + std::to_string(device.id);
  }
  return "device " + std::to_string(device.id) + " of DLPack's device type " + std::to_string(device.type);
}

void check_device(dlpack::Device device) {
  if (device.type == dlpack::cpu || device.type == dlpack::cuda_host || device.type == dlpack::cuda_managed) return;
  throw py::type_error("the array is on " + device_name(device) + ", which the host cannot read");
}

py::dtype unsigned_of(int bytes) {
  switch (bytes) {
    case 1:
      return py::dtype::of<std::uint8_t>();
    case 2:
      return py::dtype::of<std::uint16_t>();
    case 4:
      return py::dtype::of<std::uint32_t>();
    default:
      return py::dtype::of<std::uint64_t>();
  }
}

struct Extent {
  std::vector<py::ssize_t> shape, strides;  // strides in bytes
  bool empty = false;
};

Extent extent_of(const dlpack::Tensor& t, std::int64_t item_size) {
  constexpr int most_dimensions = 64;  // NumPy's limit
  if (t.ndim < 0 || t.ndim > most_dimensions || (t.ndim > 0 && t.shape == nullptr)) {
    throw py::type_error("malformed DLPack tensor: " + std::to_string(t.ndim) + " dimensions" +
                         (t.ndim > 0 && t.shape == nullptr ? " without a shape" : ""));
  }
  Extent e{std::vector<py::ssize_t>(t.ndim), std::vector<py::ssize_t>(t.ndim)};
  for (int d = 0; d < t.ndim; ++d) {
    if (t.shape[d] < 0) throw py::type_error("malformed DLPack tensor: a dimension of " + std::to_string(t.shape[d]));
    e.empty = e.empty || t.shape[d] == 0;
    e.shape[d] = t.shape[d];
  }
  std::int64_t bytes = item_size;
  for (int d = t.ndim - 1; d >= 0; --d) {
    bool overflow = false;
    e.strides[d] = bytes;
    if (t.strides != nullptr) overflow = __builtin_mul_overflow(t.strides[d], item_size, &e.strides[d]);
    if (t.shape[d] != 0) overflow = __builtin_mul_overflow(bytes, t.shape[d], &bytes) || overflow;  // as NumPy counts
    if (overflow) throw py::type_error("malformed DLPack tensor: more bytes than an address can count");
  }
  return e;
}

py::tuple view(const dlpack::Tensor& t, bool writeable, Owner owner) {
  check_device(t.device);
  std::string name = type_name(t.dtype);
  const int item_size = t.dtype.bits / 8;
  const Extent e = extent_of(t, item_size);
  const py::dtype dtype = unsigned_of(item_size);
  if (e.empty) return py::make_tuple(py::array(dtype, e.shape), std::move(name));
  if (t.data == nullptr) throw py::type_error("malformed DLPack tensor: no data");
  py::capsule base(owner.get(), owner.get_deleter());
  owner.release();  // NOLINT: the capsule owns it now
  py::array array(dtype, e.shape, e.strides, static_cast<const char*>(t.data) + t.byte_offset, base);
  if (!writeable) array.attr("flags").attr("writeable") = false;
  return py::make_tuple(std::move(array), std::move(name));
}

// Takes the capsule's tensor, and returns what `use` makes of it: (tensor, writeable, owner).
template <class Use>
auto with_tensor(const py::object& capsule, Use use) {
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::VersionedTensor::name)) {
    auto [managed, owner] = consume<dlpack::VersionedTensor>(capsule);
    if (managed->major != dlpack::major_version) {
      throw py::type_error("DLPack version " + std::to_string(managed->major) + " is not supported, only 1 and before");
    }
    return use(managed->tensor, (managed->flags & dlpack::read_only) == 0, std::move(owner));
  }
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::ManagedTensor::name)) {
    auto [managed, owner] = consume<dlpack::ManagedTensor>(capsule);
    return use(managed->tensor, false, std::move(owner));  // it cannot say whether its memory may be written
  }
  throw py::type_error("not a DLPack capsule that is still unused");
}

py::tuple dlpack_view(const py::object& capsule) { return with_tensor(capsule, view); }

DeviceArray device_view(const py::object& capsule, const std::string& library, std::uintptr_t stream) {
  return with_tensor(capsule, [&](const dlpack::Tensor& t, bool writeable, Owner owner) {
    if (t.device.type != dlpack::cuda && t.device.type != dlpack::cuda_managed)
      throw py::type_error("the array is on " + device_name(t.device) + ", not on a CUDA device");
    const std::string name = type_name(t.dtype);
    const Extent e = extent_of(t, t.dtype.bits / 8);
    std::int64_t dense = t.dtype.bits / 8;
    for (int d = t.ndim - 1; d >= 0 && !e.empty; --d) {
      if (e.shape[d] != 1 && e.strides[d] != dense)
        throw py::type_error("must be C-contiguous on its device; copy it there first");
      dense *= e.shape[d];
    }
    py::capsule base(owner.get(), owner.get_deleter());
    owner.release();  // NOLINT: the capsule owns it now
    const Place place = place_of(library, t.device.type == dlpack::cuda ? t.device.id : -1, stream, py::none());
    char* data = t.data == nullptr ? nullptr : static_cast<char*>(t.data) + t.byte_offset;
    return borrow(place, data, e.shape, name, std::move(base), writeable);
  });
}

}  // namespace

void bind_dlpack(py::module_& m) {
  m.def("dlpack_view", &dlpack_view, py::arg("capsule"),
        "(bits, dtype name) of a DLPack capsule: a view as unsigned integers that keeps the producer's memory alive.");
  m.def("dlpack_device_view", &device_view, py::arg("capsule"), py::arg("library"), py::arg("stream"),
        "A DeviceArray over a DLPack capsule's memory, ready in the order of a stream.");
}

}  // namespace gradkern::bindings
