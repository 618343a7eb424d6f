// Page-locked memory: what is given back serves the next who asks for as much, within a bound.
#include <set>
#include <vector>

#include "base/expects.hpp"
#include "check.hpp"
#include "executor/pinned.hpp"

namespace gradkern {
namespace {

using executor::Pinned;

struct Host {
  int made = 0, released = 0;
  std::int64_t bytes = 0, left = std::int64_t(1) << 40;  // that are out now, and that may be taken at once
  std::set<void*> out;
} host;

executor::DeviceTable table() {
  executor::DeviceTable t{};
  t.allocate_host = [](void** pointer, std::int64_t bytes) {
    if (bytes > host.left) return 2;
    ++host.made;
    *pointer = new std::int64_t(bytes);
    host.out.insert(*pointer);
    host.bytes += bytes;
    host.left -= bytes;
    return 0;
  };
  t.release_host = [](void* pointer) {
    CHECK(host.out.erase(pointer) == 1);
    ++host.released;
    auto* const bytes = static_cast<std::int64_t*>(pointer);
    host.bytes -= *bytes;
    host.left += *bytes;
    delete bytes;
    return 0;
  };
  t.error_text = [](int) { return "out of memory"; };
  return t;
}

void run() {
  const executor::DeviceTable t = table(), other = table();
  CHECK(Pinned::size_of(1) == 1 << 16 && Pinned::size_of(70000) == 1 << 17 && Pinned::size_of(1 << 20) == 1 << 20);
  void* first = nullptr;
  {
    first = Pinned(t, 70000).data();
  }
  {
    const Pinned again(t, 100000), more(t, 100000), elsewhere(other, 100000);
    CHECK(again.data() == first && more.data() != first && elsewhere.data() != first && host.made == 3);
  }
  // The oldest make room for the newest; what is large is not kept.
  for (int i = 0; i < 40; ++i) {
    std::vector<Pinned> blocks;
    for (int j = 0; j <= i % 5; ++j) blocks.emplace_back(t, std::int64_t(i % 3 + 1) << 24);
  }
  CHECK(host.bytes <= Pinned::most_kept_bytes, host.bytes);
  const int released = host.released;
  {
    const Pinned large(t, Pinned::most_kept_bytes);
  }
  CHECK(host.released == released + 1);
  // What is kept is given up before memory is said to be out.
  host.left = 1 << 20;
  {
    const Pinned needed(t, 1 << 23);
  }
  CHECK(host.bytes == 1 << 23, host.bytes);
  host.left = 0;
  bool refused = false;
  try {
    const Pinned none(t, 1 << 24);
  } catch (const base::DeviceError&) {
    refused = true;
  }
  CHECK(refused && host.bytes == 0);
}

}  // namespace
}  // namespace gradkern

int main() {
  gradkern::run();
  return gradkern::test::report();
}
