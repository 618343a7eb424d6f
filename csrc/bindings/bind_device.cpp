// DeviceArray in Python: to the host and back, and to other libraries by DLPack and __cuda_array_interface__.
#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "bindings/pending_counts.hpp"
#include "executor/library.hpp"

namespace gradkern::bindings {
namespace {

constexpr std::uintptr_t legacy_stream = 1;  // as both protocols number CUDA's default stream

std::uintptr_t number_of(executor::Stream stream) { return reinterpret_cast<std::uintptr_t>(stream); }

py::object dtype_of(const std::string& name) {
  if (name.starts_with("bfloat") || name.starts_with("float8"))
    return py::module_::import("numpy").attr("dtype")(py::module_::import("ml_dtypes").attr(name.c_str()));
  return py::dtype(name);
}

void copy(const Place& place, void* to, const void* from, std::int64_t bytes, bool wait) {
  const Scope scope(place);
  const py::gil_scoped_release release;
  place.check(place.table().copy(to, from, bytes, place.stream), "copy");
  if (wait) place.check(place.table().synchronize(place.stream), "synchronize");
}

DeviceArray from_host(const py::array& array, const std::string& library, std::uintptr_t stream) {
  const py::array dense = py::array::ensure(array, py::array::c_style);
  auto made = DeviceArray::empty(place_of(library, 0, stream, py::none()), py::str(dense.dtype().attr("name")),
                                 {dense.shape(), dense.shape() + dense.ndim()});
  copy(made.place, made.data(), dense.data(), made.nbytes(), true);
  return made;
}

py::object to_host(const DeviceArray& a) {
  py::array_t<char> bytes(a.nbytes());
  copy(a.place, bytes.mutable_data(), a.data(), a.nbytes(), true);
  return bytes.attr("view")(dtype_of(a.dtype)).attr("reshape")(a.shape);
}

void assign(const DeviceArray& a, const py::ellipsis&, const ArrayView& values) {
  base::expects(a.writeable, "DeviceArray: is read-only");
  base::expects(values.size() == a.size() && values.itemsize() == a.itemsize() && values.contiguous(),
                "DeviceArray: what is assigned has another size");
  copy(a.place, a.data(), values.data(), a.nbytes(), values.place() == nullptr);
}

DeviceArray viewed(const DeviceArray& a, const py::object& dtype) {
  DeviceArray view = a;
  view.dtype = py::str(py::getattr(dtype, "name", dtype));
  base::expects(view.itemsize() == a.itemsize(), "DeviceArray.view: the item sizes differ");
  return view;
}

DeviceArray reshaped(const DeviceArray& a, std::vector<py::ssize_t> shape) {
  DeviceArray view = a;
  view.shape = std::move(shape);
  base::expects(view.size() == a.size(), "DeviceArray.reshape: the sizes differ");
  return view;
}

void expects_cuda(const DeviceArray& a) {
  if (std::string(a.place.executor->name) != "cuda")
    throw py::type_error("memory of device '" + std::string(a.place.executor->name) + "' is read by to_host() only");
}

template <class Managed>
struct Export {
  Managed managed{};
  DeviceArray array;
  std::vector<std::int64_t> shape, strides;
};

template <class Managed>
void give_back(Managed* managed) {
  if (Py_IsInitialized() == 0) return;  // the process is ending
  const py::gil_scoped_acquire acquire;
  delete static_cast<Export<Managed>*>(managed->context);
}

void unused(PyObject* capsule, const char* name, void (*drop)(void*)) {
  if (PyCapsule_IsValid(capsule, name)) drop(PyCapsule_GetPointer(capsule, name));
}

template <class Managed>
py::object exported(const DeviceArray& a) {
  auto made = std::make_unique<Export<Managed>>(Export<Managed>{{}, a, {a.shape.begin(), a.shape.end()}, {}});
  made->strides.resize(a.shape.size());
  std::int64_t step = 1;
  for (std::size_t d = a.shape.size(); d-- > 0; step *= made->shape[d]) made->strides[d] = step;
  made->managed.tensor = {a.data(),
                          {dlpack::cuda, a.place.device},
                          static_cast<std::int32_t>(a.shape.size()),
                          type_of(a.dtype),
                          made->shape.data(),
                          made->strides.data(),
                          0};
  made->managed.context = made.get();
  made->managed.deleter = give_back<Managed>;
  if constexpr (std::is_same_v<Managed, dlpack::VersionedTensor>) {
    made->managed.major = dlpack::major_version;
    made->managed.flags = a.writeable ? 0 : dlpack::read_only;
  }
  PyObject* capsule = PyCapsule_New(&made->managed, Managed::name, [](PyObject* c) {
    unused(c, Managed::name, [](void* m) { give_back(static_cast<Managed*>(m)); });
  });
  if (capsule == nullptr) throw py::error_already_set();
  made.release();  // NOLINT: the capsule owns it now
  return py::reinterpret_steal<py::object>(capsule);
}

py::object to_dlpack(const DeviceArray& a, const py::object& stream, const py::object& max_version,
                     const py::object& dl_device, const py::object& copied) {
  expects_cuda(a);
  if (!dl_device.is_none() && !dl_device.equal(py::make_tuple(int(dlpack::cuda), a.place.device)))
    throw py::buffer_error("DeviceArray: is given on its own device only");
  if (py::isinstance<py::bool_>(copied) && copied.cast<bool>())
    throw py::buffer_error("DeviceArray: gives its memory, not copies");
  const auto theirs = stream.is_none() ? std::int64_t(legacy_stream) : stream.cast<std::int64_t>();
  const auto ours = number_of(a.place.stream) == 0 ? legacy_stream : number_of(a.place.stream);
  base::expects(theirs != 0, "DeviceArray: stream 0 is ambiguous; 1 is CUDA's default stream");
  if (theirs > 0 && static_cast<std::uintptr_t>(theirs) != ours) {
    const Scope scope(a.place);
    a.place.check(a.place.table().stream_wait(reinterpret_cast<executor::Stream>(theirs), a.place.stream), "wait");
  }
  const bool versioned = !max_version.is_none() && max_version[py::int_(0)].cast<int>() >= 1;
  return versioned ? exported<dlpack::VersionedTensor>(a) : exported<dlpack::ManagedTensor>(a);
}

py::dict cuda_array_interface(const DeviceArray& a) {
  const auto type = type_of(a.dtype);
  if (std::string(a.place.executor->name) != "cuda" || (type.code > dlpack::code_float))
    throw py::attribute_error("__cuda_array_interface__ has no name for " + a.dtype + " on " + a.device());
  py::dict d;
  d["shape"] = py::tuple(py::cast(a.shape));
  d["typestr"] = dtype_of(a.dtype).attr("str");
  d["data"] = py::make_tuple(number_of(a.data()), !a.writeable);
  d["strides"] = py::none();
  d["version"] = 3;
  d["stream"] = number_of(a.place.stream) == 0 ? legacy_stream : number_of(a.place.stream);
  return d;
}

py::list devices(const std::string& name) {
  const auto& table = *executor::device(name).device;
  int count = 0;
  executor::check(table, table.device_count(&count), "device_count");
  py::list found;
  for (int i = 0; i < count; ++i) {
    executor::DeviceDescription d{};
    executor::check(table, table.describe(i, &d), "describe");
    found.append(py::make_tuple(d.name, d.major, d.minor, d.memory_bytes));
  }
  return found;
}

}  // namespace

void bind_device(py::module_& m) {
  m.def("devices", &devices, py::arg("name"), "(name, major, minor, bytes of memory) of each device of a library.");
  py::class_<PendingCounts>(m, "PendingCounts").def("fetch", &PendingCounts::fetch);
  py::class_<DeviceArray>(m, "DeviceArray", "A C-contiguous array in a device's memory.")
      .def_static("from_host", &from_host, py::arg("array"), py::arg("library"), py::arg("stream") = 0)
      .def_static(
          "borrow",
          [](const std::string& library, std::uintptr_t pointer, std::vector<py::ssize_t> shape,
             const std::string& dtype, int device, std::uintptr_t stream, py::object owner, bool writeable) {
            return borrow(place_of(library, device, stream, owner), reinterpret_cast<void*>(pointer), std::move(shape),
                          dtype, owner, writeable);
          },
          py::arg("library"), py::arg("pointer"), py::arg("shape"), py::arg("dtype"), py::arg("device"),
          py::arg("stream"), py::arg("owner"), py::arg("writeable"))
      .def(
          "empty",
          [](const DeviceArray& a, const std::vector<py::ssize_t>& shape, const std::string& dtype) {
            return DeviceArray::empty(a.place, dtype, shape);
          },
          py::arg("shape"), py::arg("dtype"), "An array at the same place, of any values.")
      .def("to_host", &to_host, "As a NumPy array; waits for the device.")
      .def("view", &viewed, py::arg("dtype"))
      .def("reshape", &reshaped, py::arg("shape"))
      .def("__setitem__", &assign, py::arg("key"), py::arg("values"))
      .def(
          "use_stream",
          [](DeviceArray& a, std::uintptr_t stream, py::object owner) {
            a.place.stream = reinterpret_cast<executor::Stream>(stream);
            a.place.stream_owner = std::move(owner);
          },
          py::arg("stream"), py::arg("owner"), "Enqueue further work on another stream.")
      .def_property_readonly("shape", [](const DeviceArray& a) { return py::tuple(py::cast(a.shape)); })
      .def_property_readonly("ndim", [](const DeviceArray& a) { return a.shape.size(); })
      .def_property_readonly("size", &DeviceArray::size)
      .def_property_readonly("itemsize", &DeviceArray::itemsize)
      .def_property_readonly("nbytes", &DeviceArray::nbytes)
      .def_property_readonly("dtype", [](const DeviceArray& a) { return dtype_of(a.dtype); })
      .def_readonly("dtype_name", &DeviceArray::dtype, "What dtype.name says, which takes NumPy longer.")
      .def_property_readonly("library", [](const DeviceArray& a) { return a.place.executor->name; })
      .def_property_readonly("device", &DeviceArray::device)
      .def_property_readonly("pointer", [](const DeviceArray& a) { return number_of(a.data()); })
      .def_property_readonly("stream", [](const DeviceArray& a) { return number_of(a.place.stream); })
      .def_readonly("writeable", &DeviceArray::writeable)
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
           py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const DeviceArray& a) {
             expects_cuda(a);
             return py::make_tuple(int(dlpack::cuda), a.place.device);
           })
      .def_property_readonly("__cuda_array_interface__", &cuda_array_interface)
      .def("__repr__", [](const DeviceArray& a) {
        return "<" + a.dtype + " array of shape " + std::string(py::repr(py::tuple(py::cast(a.shape)))) + " on " +
               a.device() + ">";
      });
}

}  // namespace gradkern::bindings
