// Runs a CUDA kernel on the CPU: enough of CUDA C++ for hide_and_seek.cu, compiled by g++ in front of it.
//
// Each thread of a block is a fiber with a stack of its own; the scheduler runs them one at a time, in an order that
// differs from round to round, and a barrier is where a fiber yields. A barrier that cannot complete is a deadlock,
// which is reported. Shared memory is filled with a pattern first; bytes beyond what the plan asked for must keep it.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __device__
#define __global__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::max;
using std::min;

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};
struct dim3_host {
  unsigned int x, y, z;
};

inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
inline unsigned int __umulhi(unsigned int a, unsigned int b) { return (unsigned int)((uint64_t)a * b >> 32); }
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
  return (unsigned int)(((uint64_t)high << 32 | low) >> (shift & 31));
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __ll2float_rn(long long value) { return (float)value; }
inline unsigned int __float_as_uint(float value) {
  unsigned int bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// float32 to float16 bits, to nearest even: the value in units of the last place, rounded, then packed.
inline unsigned short half_bits(float value) {
  const unsigned int sign = __float_as_uint(value) >> 16 & 0x8000u;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7FFF;
  if (magnitude >= 65520.0f) return (unsigned short)(sign | 0x7C00u);
  int exponent = magnitude == 0.0f ? -14 : std::max(-14, std::ilogb(magnitude));
  const int units = (int)std::nearbyint(std::ldexp((double)magnitude, 10 - exponent));
  return (unsigned short)(sign | ((unsigned int)(exponent + 14) * 1024u + (unsigned int)units));
}

template <class T>
inline T __ldg(const T* address) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T)) std::abort();  // the hardware faults
  return *address;
}

constexpr size_t SHARED_CAPACITY = 64 * 1024;
constexpr unsigned char SHARED_PATTERN = 0xB7;
alignas(256) uint4 shared_memory[SHARED_CAPACITY / sizeof(uint4)];
dim3_host threadIdx, blockIdx;

namespace shim {

constexpr size_t STACK_BYTES = 64 * 1024;
constexpr unsigned int WARP = 32;
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  State state = READY;
  unsigned int value = 0;  // what a warp operation exchanges
  void* fake_stack = nullptr;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_bytes = 0;
inline unsigned int current = 0;
inline void (*body)() = nullptr;

inline void leave(Fiber& fiber, bool last) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.fake_stack, scheduler_stack, scheduler_bytes);
#else
  (void)last;
#endif
  swapcontext(&fiber.context, &scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack, &scheduler_bytes);
#endif
}

inline void wait(State state) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  leave(fiber, false);
}

inline void entry() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
  body();
  Fiber& fiber = fibers[current];
  fiber.state = DONE;
  leave(fiber, true);
}

inline void resume(unsigned int index) {
  current = index;
  threadIdx = {index, 0, 0};
#ifdef __SANITIZE_ADDRESS__
  void* own = nullptr;
  __sanitizer_start_switch_fiber(&own, fibers[index].stack.get(), STACK_BYTES);
#endif
  swapcontext(&scheduler, &fibers[index].context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#endif
}

// Opens the barrier of fibers first .. last - 1 when all that are not done wait at it.
inline bool release(unsigned int first, unsigned int last, State barrier) {
  bool any = false;
  for (unsigned int i = first; i < last; ++i) {
    if (fibers[i].state != barrier && fibers[i].state != DONE) return false;
    any = any || fibers[i].state == barrier;
  }
  for (unsigned int i = first; any && i < last; ++i)
    if (fibers[i].state == barrier) fibers[i].state = READY;
  return any;
}

// Runs one block; false: some barrier can never complete.
inline bool run_block(unsigned int threads) {
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = &scheduler;
    fiber.state = READY;
    makecontext(&fiber.context, entry, 0);
  }
  for (unsigned int round = 0;; ++round) {
    bool ran = false;
    for (unsigned int i = 0; i < threads; ++i) {
      const unsigned int index = round % 2 ? threads - 1 - i : i;
      if (fibers[index].state != READY) continue;
      resume(index);
      ran = true;
    }
    for (unsigned int first = 0; first < threads; first += WARP) ran |= release(first, first + WARP, AT_WARP_BARRIER);
    ran |= release(0, threads, AT_BLOCK_BARRIER);
    if (!ran) return std::all_of(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.state == DONE; });
  }
}

inline int run(unsigned int grid, unsigned int block, size_t shared_bytes) {
  fibers = std::vector<Fiber>(block);
  unsigned char* const shared = reinterpret_cast<unsigned char*>(shared_memory);
  for (unsigned int i = 0; i < grid; ++i) {
    blockIdx = {i, 0, 0};
    std::memset(shared, SHARED_PATTERN, SHARED_CAPACITY);
    if (!run_block(block)) return 1;
    for (size_t at = shared_bytes; at < SHARED_CAPACITY; ++at)
      if (shared[at] != SHARED_PATTERN) return 2;
  }
  return 0;
}

}  // namespace shim

inline void __syncthreads() { shim::wait(shim::AT_BLOCK_BARRIER); }
inline void __syncwarp() { shim::wait(shim::AT_WARP_BARRIER); }

inline unsigned int __shfl_xor_sync(unsigned int, unsigned int value, unsigned int distance) {
  shim::fibers[shim::current].value = value;
  __syncwarp();
  const unsigned int other = shim::fibers[shim::current ^ distance].value;
  __syncwarp();
  return other;
}

// run_kernel(arguments, blocks, threads, shared bytes): 0, or 1 deadlock, 2 shared memory overrun.
#define RUN_KERNEL(kernel, Arguments)                                                                            \
  static const Arguments* kernel_arguments;                                                                      \
  extern "C" int run_kernel(const void* bytes, unsigned int grid, unsigned int block, size_t shared_bytes) {     \
    Arguments arguments;                                                                                         \
    std::memcpy(static_cast<void*>(&arguments), bytes, sizeof arguments);                                        \
    kernel_arguments = &arguments;                                                                               \
    shim::body = [] { kernel(*kernel_arguments); };                                                              \
    return shim::run(grid, block, shared_bytes);                                                                 \
  }
