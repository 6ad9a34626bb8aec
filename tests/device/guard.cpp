// A CUDA device guard and CUDA hooks for a CPU build of PyTorch: two cards, one stream each, nothing to wait for.
// Every thread has its current card, as under CUDA.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

constexpr c10::DeviceIndex CARDS = 2;
thread_local c10::DeviceIndex current = 0;

c10::Device card(c10::DeviceIndex index) { return {c10::DeviceType::CUDA, index}; }
c10::Stream stream_of(c10::Device d) {
  return c10::Stream(c10::Stream::DEFAULT, card(d.has_index() ? d.index() : current));
}
c10::DeviceIndex exchange(c10::DeviceIndex index) {
  const auto before = current;
  if (index >= 0) current = index;
  return before;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device d) const override { return card(exchange(d.index())); }
  c10::Device getDevice() const override { return card(current); }
  void setDevice(c10::Device d) const override { exchange(d.index()); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { exchange(d.index()); }
  c10::Stream getStream(c10::Device d) const noexcept override { return stream_of(d); }
  c10::Stream getDefaultStream(c10::Device d) const override { return stream_of(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return stream_of(d); }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return stream_of(s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return CARDS; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return CARDS; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex current_device() const override { return current; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override { return exchange(index); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override { return exchange(index); }
  int getNumGPUs() const override { return CARDS; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};

}  // namespace

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
}
namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}

extern "C" int pretend_exchange(int index) { return exchange(static_cast<c10::DeviceIndex>(index)); }
