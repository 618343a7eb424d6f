#include "bindings/array_view.hpp"

#include "base/expects.hpp"

namespace gradkern::bindings {

ArrayView::ArrayView(const py::array& array)
    : owner_(array),
      data_(const_cast<void*>(array.data())),
      shape_(array.shape()),
      size_(array.size()),
      ndim_(array.ndim()),
      itemsize_(array.itemsize()),
      contiguous_((array.flags() & py::array::c_style) != 0),
      writeable_(array.writeable()) {}

ArrayView::ArrayView(const DeviceArray& array, py::object owner)
    : owner_(std::move(owner)),
      data_(array.data()),
      shape_(array.shape.data()),
      size_(array.size()),
      ndim_(static_cast<py::ssize_t>(array.shape.size())),
      itemsize_(array.itemsize()),
      writeable_(array.writeable),
      place_(&array.place) {}

void* ArrayView::mutable_data() const {
  base::expects(writeable_, "array is not writeable");
  return data_;
}

Run::Run(std::initializer_list<const ArrayView*> arrays) {
  for (const ArrayView* array : arrays)
    if (array) meet(*array);
}

Run::Run(const std::vector<ArrayView>& arrays) {
  for (const ArrayView& array : arrays) meet(array);
}

void Run::meet(const ArrayView& array) {
  const Place* other = array.place();
  if (other == nullptr) {
    on_host_ = true;
    return;
  }
  if (place_ == nullptr) {
    place_ = other;
    waited_for_ = other->stream;
    scope_.emplace(*place_);
    return;
  }
  if (other->executor != place_->executor || other->device != place_->device)
    throw py::type_error("arrays lie on two devices");
  if (other->stream == place_->stream || other->stream == waited_for_) return;
  place_->check(place_->table().stream_wait(place_->stream, other->stream), "stream_wait");
  waited_for_ = other->stream;
}

Run::Made Run::wide(formats::FormatId computed_in, std::vector<py::ssize_t> shape) const {
  if (place_ == nullptr) {
    py::array made = wide_array(computed_in, std::move(shape));
    return {made, made.mutable_data()};
  }
  const bool doubles = executor::wide_format(computed_in) == formats::FormatId::float64;
  DeviceArray made = DeviceArray::empty(*place_, doubles ? "float64" : "float32", std::move(shape));
  void* data = made.data();
  return {py::cast(std::move(made)), data};
}

namespace {

void check_bits(const ArrayView& array, formats::FormatId format) {
  base::expects(array.itemsize() == formats::container_bytes(format), "array: the item size does not fit the format");
  base::expects(array.contiguous(), "array: must be C-contiguous");
}

}  // namespace

const void* bits_of(const ArrayView& array, formats::FormatId format) {
  check_bits(array, format);
  return array.data();
}

void* writable_bits_of(const ArrayView& array, formats::FormatId format) {
  check_bits(array, format);
  return array.mutable_data();
}

}  // namespace gradkern::bindings
