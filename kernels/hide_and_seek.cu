// Hide-and-Seek on the GPU: `hide` and `resize_mirror_normalize_hide`, one launch for a whole batch.
//
// Work split (both)
//   A block of 256 threads works on one tile of one image; blockIdx.x counts tiles, channel groups and images.
//   1. Thread 0 draws patch size and grid offset (Philox block 0) and finds the cells that the tile touches.
//   2. All threads draw those cells into shared memory, a byte each; a Philox block serves four cells.
//   3. All threads widen the cells to one bit per element (hide) or pixel (fused), 32 at a time, by runs: no division
//      per pixel, and nothing per pixel that depends on the patch size.
//   4. hide: threads walk the tile in aligned 16-byte vectors, once for each of the block's planes. A tile is 4,096
//      elements of a plane, or 8,192 of an interleaved image, in whole lines where they fit. In place, only hidden
//      elements are stored and nothing is loaded; out of place, fully hidden vectors are not loaded.
//      fused: a warp finishes a segment of a row at a time (64 pixels, 128 without resampling): it reads bytes, blends
//      rows first, then columns, stages the segment in shared memory in the output's order and stores 16-byte
//      vectors. A tile is up to 256 x 16 pixels. With antialias, source columns are blended vertically once for all
//      pixels of the segment, in chunks of 128, and only those that a visible pixel needs.
//   Where a line does not start on 16 bytes, its head and tail are stored by element and the rest by vector.
//   No mask and no table is ever in global memory. Per-sample values are kernel arguments (launch_layout.py) or arrays
//   that are on the device already. All offsets are 64-bit.
//
// Numerics: reference.py, to the bit. Every float32 operation is spelt with its rounding (__fmaf_rn and so on), so
// compiler options cannot change a result.
//
// Registers, from the cubins of sm_75 to sm_120, no spills: hide at most 40 (27 to 32 in the common forms), fused at
// most 64, with antialias 80. They are held by __launch_bounds__: 6, 4 and 3 blocks per SM.
//
// Bytes moved per image of 224 x 224 x 3 and the memory's bound in images/s, patch sizes 0 16 32 44 56, p = 0.5 (40 %
// hidden), 2.0 and 3.35 TB/s:
//   hide, uint8, in place                60,211    33.2 M    55.6 M
//   hide, uint8, out of place           240,845     8.3 M    13.9 M
//   hide, float16, in place             120,422    16.6 M    27.8 M
//   fused, uint8 to float16             391,373     5.1 M     8.6 M    without resampling
//   fused, uint8 to float32             692,429     2.9 M     4.8 M    without resampling
//   fused, 256 x 256 to float16         419,021     4.8 M     8.0 M
//   fused, 256 x 256 to float32         720,077     2.8 M     4.7 M
// These are bounds by arithmetic; `python -m has_dali.bench.kernel_cost` sets the issue slots beside them.
//
// Compile-time definitions (launch_hide.py, launch_resize.py): KERNEL_HIDE or KERNEL_RESIZE; ELEMENT_BYTES 1 2 4;
// INTERLEAVED; ACCESS 16 (all vectors whole), 0 (heads and tails), 1 (elements); IN_PLACE; FILL 0 (one value),
// 1 (in the arguments), 2 (on the device); RESAMPLE 0 (none), 1 (linear), 2 (antialias); OUTPUT 0 (float32),
// 1 (float16), 2 (bfloat16); CHANNELS; SEGMENT_PIXELS; capacities of the tables, and ARGUMENT_BYTES, the size that
// the host gave them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE static __device__ __forceinline__

constexpr u32 BLOCK_THREADS = 256;
constexpr u32 WARP_THREADS = 32;
constexpr u32 BLOCK_WARPS = BLOCK_THREADS / WARP_THREADS;
constexpr u32 WORD_BITS = 32;
constexpr u32 VECTOR_BYTES = 16;

#if ELEMENT_BYTES == 1
typedef u8 Element;
#elif ELEMENT_BYTES == 2
typedef u16 Element;
#else
typedef u32 Element;
#endif
constexpr u32 VECTOR = VECTOR_BYTES / sizeof(Element);  // elements of a 16-byte access

union Vector {
  uint4 whole;
  u32 words[4];
  Element elements[VECTOR];
};

#ifndef HOST_SHIM
// float32 to the bits of float16, to nearest even; spelt in PTX because cuda_fp16.h is not everywhere NVRTC is.
DEVICE u16 half_bits(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

// ---- what a launch is told: the structures of kernels/launch.py, field for field ---------------------------

struct SampleKey {
  u64 id;
  u64 threshold;  // T(p_hide), 0 .. 2^32
  u32 epoch;
  u32 mirror;
};

// Per-sample values come from device arrays where those are given, else from the table, else one value for all.
struct Keys {
  const u64* ids;
  const u64* epochs;
  const u64* thresholds;
  const u64* mirrors;
  u64 stride;  // from sample to sample in each of these, in elements
  SampleKey shared_by_all;
};

struct Policy {
  u64 seed;
  u64 apply_threshold;  // T(p_apply)
  u32 patch_count;      // 0: nothing is hidden
  u32 random_offset;
  u32 patch_sizes[PATCH_CAPACITY];
};

// ---- Philox4x32-10 -----------------------------------------------------------------------------------------

DEVICE uint4 philox_round(uint4 c, u32 key0, u32 key1) {
  const u32 multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
  return make_uint4(__umulhi(multiplier1, c.z) ^ c.y ^ key0, multiplier1 * c.z,
                    __umulhi(multiplier0, c.x) ^ c.w ^ key1, multiplier0 * c.x);
}

// The four words of counter (block, epoch, id low, id high) under key (seed low, seed high).
DEVICE uint4 philox(u64 seed, u64 id, u32 epoch, u32 block) {
  const u32 step0 = 0x9E3779B9u, step1 = 0xBB67AE85u;
  uint4 words = make_uint4(block, epoch, (u32)id, (u32)(id >> 32));
  u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
#pragma unroll 5  // fully unrolled, Blackwell's compiler keeps all twenty round keys in registers
  for (int round = 0; round < 10; ++round) {
    words = philox_round(words, key0, key1);
    key0 += step0;
    key1 += step1;
  }
  return words;
}

// ---- the cells of one tile ---------------------------------------------------------------------------------

// A tile is the part of an image that a block works on. Thread 0 fills this in, all threads read it.
struct Cells {
  u64 id;
  u64 threshold;
  u64 image_columns;  // cells in a row of the whole image
  u32 epoch;
  u32 mirror;
  u32 patch;  // edge in pixels; 0: the image stays whole
  u32 offset_y, offset_x;
  u32 first_row, first_column;  // of the cells that the tile touches
  u32 rows, columns;            // how many it touches
  u32 reserved;
};

static_assert(sizeof(Cells) == 64, "launch.py leaves 64 bytes for Cells");

DEVICE SampleKey sample_key(const Keys& keys, const SampleKey* table, u32 sample) {
  SampleKey key = table ? table[sample] : keys.shared_by_all;
  if (keys.ids) key.id = keys.ids[sample * keys.stride];
  if (keys.epochs) key.epoch = (u32)keys.epochs[sample * keys.stride];
  if (keys.thresholds) key.threshold = keys.thresholds[sample * keys.stride];
  if (keys.mirrors) key.mirror = keys.mirrors[sample * keys.stride] != 0;
  return key;
}

// Patch size and grid offset of an image, drawn from block 0 of its words.
DEVICE void draw_grid(Cells& cells, const Policy& policy, const SampleKey& key) {
  cells.id = key.id;
  cells.epoch = key.epoch;
  cells.threshold = key.threshold;
  cells.mirror = key.mirror;
  cells.patch = cells.offset_y = cells.offset_x = 0;
  if (policy.patch_count == 0) return;
  const uint4 words = philox(policy.seed, key.id, key.epoch, 0);
  if (words.x >= policy.apply_threshold) return;
  const u32 patch = policy.patch_sizes[__umulhi(words.y, policy.patch_count)];
  cells.patch = patch;
  cells.offset_y = policy.random_offset ? __umulhi(words.z, patch) : 0;
  cells.offset_x = policy.random_offset ? __umulhi(words.w, patch) : 0;
}

// Which cells the tile of `height` x `width` pixels at (y, x) touches.
DEVICE void locate_cells(Cells& cells, u32 y, u32 x, u32 height, u32 width, u32 image_width) {
  if (cells.patch == 0) return;
  const u32 down = y + cells.offset_y, across = x + cells.offset_x;
  cells.first_row = down / cells.patch;
  cells.rows = (down + height - 1) / cells.patch - cells.first_row + 1;
  cells.first_column = across / cells.patch;
  cells.columns = (across + width - 1) / cells.patch - cells.first_column + 1;
  cells.image_columns = (u64)((image_width - 1 + cells.offset_x) / cells.patch) + 1;
}

DEVICE void store_cell(const Cells& cells, u8* hidden, u32 row, i64 column, u32 word) {
  if (column >= 0 && column < cells.columns) hidden[row * cells.columns + (u32)column] = word < cells.threshold;
}

// One byte per cell of the tile: 1 where hidden. A Philox block serves its four cells.
DEVICE void hide_cells(const Cells& cells, u64 seed, u8* hidden) {
  const u32 blocks = (cells.columns + 6) / 4;  // the most that `columns` consecutive cells can touch
#pragma unroll 1
  for (u32 slot = threadIdx.x; slot < cells.rows * blocks; slot += BLOCK_THREADS) {
    const u32 row = slot / blocks;
    const u64 first = (cells.first_row + (u64)row) * cells.image_columns + cells.first_column;
    const u64 block = (first >> 2) + (slot - row * blocks);
    const i64 column = (i64)(block * 4 - first);
    if (column >= (i64)cells.columns) continue;
    const uint4 words = philox(seed, cells.id, cells.epoch, (u32)(block + 1));
    store_cell(cells, hidden, row, column, words.x);
    store_cell(cells, hidden, row, column + 1, words.y);
    store_cell(cells, hidden, row, column + 2, words.z);
    store_cell(cells, hidden, row, column + 3, words.w);
  }
}

// ---- from cells to one bit per element ---------------------------------------------------------------------

// A walk along the elements of an image in memory order, run by run; a run is a stretch of one line in one cell.
// A line holds `line_elements` elements, `channels` for each pixel.
struct Walk {
  u32 cell, line_cell;  // index of this run's cell, and of the first cell of this line
  u32 run_left, line_left;
  u32 lines_left;  // lines left in this row of cells
};

DEVICE u32 run_length(u64 pixels, u32 channels, u32 skipped, u32 line_left) {
  const u64 elements = pixels * channels - skipped;
  return elements < line_left ? (u32)elements : line_left;
}

DEVICE Walk walk_from(const Cells& cells, u32 y, u32 element, u32 channels, u32 line_elements) {
  const u32 x = channels == 1 ? element : element / channels;
  const u32 down = y + cells.offset_y, across = x + cells.offset_x;
  const u32 row = down / cells.patch, column = across / cells.patch;
  Walk walk;
  walk.line_cell = (row - cells.first_row) * cells.columns;
  walk.cell = walk.line_cell + column - cells.first_column;
  walk.line_left = line_elements - element;
  walk.run_left = run_length(cells.patch - (across - column * cells.patch), channels, element - x * channels,
                             walk.line_left);
  walk.lines_left = cells.patch - (down - row * cells.patch);
  return walk;
}

DEVICE void next_run(Walk& walk, const Cells& cells, u32 channels, u32 line_elements) {
  u32 pixels = cells.patch;
  ++walk.cell;
  if (walk.line_left == 0) {
    pixels -= cells.offset_x;
    walk.line_left = line_elements;
    if (--walk.lines_left == 0) {
      walk.line_cell += cells.columns;
      walk.lines_left = cells.patch;
    }
    walk.cell = walk.line_cell;
  }
  walk.run_left = run_length(pixels, channels, 0, walk.line_left);
}

// The next 32 elements as bits, 1 = hidden, lowest bit first; zeros after `left` elements.
DEVICE u32 walk_word(Walk& walk, const Cells& cells, const u8* hidden, u32 channels, u32 line_elements, u32& left) {
  u32 word = 0, filled = 0;
  const u32 wanted = left < WORD_BITS ? left : WORD_BITS;
  left -= wanted;
  while (filled < wanted) {
    if (walk.run_left == 0) next_run(walk, cells, channels, line_elements);
    const u32 room = wanted - filled;
    const u32 taken = walk.run_left < room ? walk.run_left : room;
    if (hidden[walk.cell]) word |= (0xFFFFFFFFu >> (WORD_BITS - taken)) << filled;
    filled += taken;
    walk.run_left -= taken;
    walk.line_left -= taken;
  }
  return word;
}

extern __shared__ uint4 shared_memory[];  // laid out by launch.py: Cells, cell bytes, mask words, then the rest

#ifdef KERNEL_HIDE
// ---- hide --------------------------------------------------------------------------------------------------

struct HideArguments {
  const Element* input;  // equal to output in place
  Element* output;
  const Element* fills;  // FILL 2: one per channel
  u64 plane_elements;    // of one channel (planar), or of the image (interleaved)
  Keys keys;
  Policy policy;
  u32 planes;  // channels (planar), or 1
  u32 planes_per_block;
  u32 plane_groups;
  u32 height, width;
  u32 channels;       // of a pixel in memory: 1 (planar), or all of them
  u32 line_elements;  // width * channels
  u32 tiles;          // per image
  u32 tiles_across;
  u32 tile_lines;     // lines of a tile; 1 where a line is cut into several tiles
  u32 tile_elements;  // elements of a tile's line
  u32 lane_bits;      // 2^lane_bits threads work on one plane, the others on the next ones
  u32 channel_reciprocal;  // ceil(2^32 / channels)
  u32 hidden_at, mask_at, pattern_at;  // bytes from the start of shared memory
  u32 fill;           // FILL 0: the element that is written, repeated over the word
  u32 reserved;
#if FILL == 1
  Element fill_table[FILL_CAPACITY];
#endif
#if SAMPLE_CAPACITY > 0
  SampleKey table[SAMPLE_CAPACITY];
#endif
};

static_assert(sizeof(HideArguments) == ARGUMENT_BYTES, "HideArguments differs from the layout in launch.py");

struct Tile {
  u32 y, element;  // where it starts: line, and element in that line
  u32 lines, elements;  // its lines, and all of its elements
};

DEVICE Tile hide_tile(const HideArguments& a, u32 index) {
  const u32 down = index / a.tiles_across, across = index - down * a.tiles_across;
  Tile tile;
  tile.y = down * a.tile_lines;
  tile.element = across * a.tile_elements;
  tile.lines = min(a.tile_lines, a.height - tile.y);
  tile.elements = tile.lines * min(a.tile_elements, a.line_elements - tile.element);
  return tile;
}

// One bit per element of the tile, and two words of zeros, which make reads past the end harmless.
DEVICE void build_mask(const HideArguments& a, const Cells& cells, const Tile& tile, const u8* hidden, u32* mask) {
  const u32 words_per_thread = 2;  // halves the divisions that start a walk
  const u32 words = (tile.elements + WORD_BITS - 1) / WORD_BITS + 2;
#pragma unroll 1
  for (u32 first = threadIdx.x * words_per_thread; first < words; first += BLOCK_THREADS * words_per_thread) {
    const u32 start = first * WORD_BITS;
    u32 left = start < tile.elements ? tile.elements - start : 0;
    const u32 element = left ? tile.element + start : 0;
    const u32 line = element / a.line_elements;
    Walk walk = walk_from(cells, tile.y + line, element - line * a.line_elements, a.channels, a.line_elements);
#pragma unroll 1
    for (u32 i = 0; i < words_per_thread && first + i < words; ++i)
      mask[first + i] = walk_word(walk, cells, hidden, a.channels, a.line_elements, left);
  }
}

DEVICE u32 repeat(Element value) {
  return (u32)value * (ELEMENT_BYTES == 1 ? 0x01010101u : ELEMENT_BYTES == 2 ? 0x00010001u : 1u);
}

DEVICE Element channel_fill(const HideArguments& a, u32 channel) {
#if FILL == 0
  return (Element)a.fill;
#elif FILL == 1
  return a.fill_table[channel];
#else
  return a.fills[channel];
#endif
}

// Interleaved, few channels: the fill vector of a group of elements that starts with a given channel.
DEVICE void build_pattern(const HideArguments& a, Element* pattern) {
  for (u32 i = threadIdx.x; i < a.channels * VECTOR; i += BLOCK_THREADS)
    pattern[i] = channel_fill(a, (i / VECTOR + i % VECTOR) % a.channels);
}

// `position`: of the vector's first element in the tile; down to 1 - VECTOR.
DEVICE Vector fill_vector(const HideArguments& a, const Tile& tile, u32 plane, int position) {
  Vector fill;
#if INTERLEAVED && FILL == 1
  const u32 shifted = position + VECTOR * a.channels;
  const u32 channel = shifted - __umulhi(shifted, a.channel_reciprocal) * a.channels;
  fill.whole = reinterpret_cast<const uint4*>(reinterpret_cast<const u8*>(shared_memory) + a.pattern_at)[channel];
#else
  const u32 word = FILL == 0 ? a.fill : repeat(channel_fill(a, plane));
  fill.whole = make_uint4(word, word, word, word);
#endif
  return fill;
}

// All ones in the elements of a 32-bit word whose bits are set.
DEVICE u32 word_mask(u32 bits) {
#if ELEMENT_BYTES == 1
  return ((bits & 0xFu) * 0x00204081u & 0x01010101u) * 0xFFu;  // bit i to byte i, then to eight bits
#elif ELEMENT_BYTES == 2
  return (bits & 1u ? 0x0000FFFFu : 0u) | (bits & 2u ? 0xFFFF0000u : 0u);
#else
  return bits & 1u ? 0xFFFFFFFFu : 0u;
#endif
}

constexpr u32 WORD_ELEMENTS = 4 / sizeof(Element);
constexpr u32 VECTOR_ONES = (1u << VECTOR) - 1;

// In place: the hidden elements of a vector are written in the widest pieces that hold nothing else.
DEVICE void overwrite(Element* to, const Vector& fill, u32 bits) {
  if (bits == VECTOR_ONES) {
    *reinterpret_cast<uint4*>(to) = fill.whole;
    return;
  }
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const u32 selected = word_mask(bits >> (w * WORD_ELEMENTS));
    if (selected == 0xFFFFFFFFu) {
      reinterpret_cast<u32*>(to)[w] = fill.words[w];
    } else if (selected) {
#pragma unroll
      for (u32 i = 0; i < WORD_ELEMENTS; ++i)
        if (bits >> (w * WORD_ELEMENTS + i) & 1u)
          to[w * WORD_ELEMENTS + i] = (Element)(fill.words[w] >> (i * ELEMENT_BYTES * 8));
    }
  }
}

// Out of place: fully hidden vectors are not read.
DEVICE void copy_visible(Element* to, const Element* from, const Vector& fill, u32 bits) {
  Vector value = fill;
  if (bits != VECTOR_ONES) {
    Vector source;
    source.whole = __ldg(reinterpret_cast<const uint4*>(from));
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const u32 selected = word_mask(bits >> (w * WORD_ELEMENTS));
      value.words[w] = (source.words[w] & ~selected) | (fill.words[w] & selected);
    }
  }
  *reinterpret_cast<uint4*>(to) = value.whole;
}

// The elements of a vector one by one, where only some belong to the tile.
DEVICE void copy_elements(Element* to, const Element* from, const Vector& fill, u32 bits, u32 inside) {
#pragma unroll
  for (u32 i = 0; i < VECTOR; ++i) {
    const Element hidden = (Element)(fill.words[i / WORD_ELEMENTS] >> (i % WORD_ELEMENTS * ELEMENT_BYTES * 8));
    if (inside >> i & 1u) to[i] = bits >> i & 1u ? hidden : from[i];
  }
}

// Bits of VECTOR elements from `position` on, which may lie before the tile by less than one vector.
DEVICE u32 mask_bits(const u32* mask, int position) {
#if ACCESS == 16
  const u32 bits = mask[position / WORD_BITS] >> (position % WORD_BITS);
#else
  const u32 at = (u32)max(position, 0);
  const u32 word = at / WORD_BITS;
  const u32 bits = __funnelshift_r(mask[word], mask[word + 1], at % WORD_BITS) << (at - (u32)position);
#endif
  return bits & VECTOR_ONES;
}

// Which elements of a vector lie in the tile.
DEVICE u32 inside_bits(int position, u32 elements) {
  const int end = (int)elements - position;
  const u32 before_end = end < (int)VECTOR ? (1u << end) - 1 : VECTOR_ONES;
  return position < 0 ? before_end & (VECTOR_ONES << -position) : before_end;
}

// ACCESS 16: every vector of the tile is aligned and whole. 0: addresses decide; the first and last vector of a
// tile may be parts. 1: elements are moved one by one, because input and output are misaligned to one another, or
// because interleaved channels have more fills than a pattern is kept for.
DEVICE void hide_plane(const HideArguments& a, const Tile& tile, const u32* mask, u64 start, u32 plane) {
  Element* const to = a.output + start;
  const Element* const from = a.input + start;
  const u32 lanes = 1u << a.lane_bits;
#if ACCESS == 1
  for (u32 i = threadIdx.x & (lanes - 1); i < tile.elements; i += lanes) {
    const bool hidden = mask[i / WORD_BITS] >> (i % WORD_BITS) & 1u;
    const u32 channel = INTERLEAVED ? (tile.element + i) % a.channels : plane;
    if (hidden) to[i] = channel_fill(a, channel);
    else if (!IN_PLACE) to[i] = from[i];
  }
#else
  const u32 skew = ACCESS == 16 ? 0 : (u32)(reinterpret_cast<u64>(to) % VECTOR_BYTES / sizeof(Element));
  const u32 vectors = (skew + tile.elements + VECTOR - 1) / VECTOR;
#pragma unroll 1
  for (u32 i = threadIdx.x & (lanes - 1); i < vectors; i += lanes) {
    const int position = (int)(i * VECTOR) - (int)skew;
    u32 bits = mask_bits(mask, position);
    const u32 inside = ACCESS == 16 ? VECTOR_ONES : inside_bits(position, tile.elements);
    bits &= inside;
    if (IN_PLACE && bits == 0) continue;
    const Vector fill = fill_vector(a, tile, plane, position);
    if (IN_PLACE) overwrite(to + position, fill, bits);
    else if (inside == VECTOR_ONES) copy_visible(to + position, from + position, fill, bits);
    else copy_elements(to + position, from + position, fill, bits, inside);
  }
#endif
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, HIDE_BLOCKS_PER_SM)
hide(const __grid_constant__ HideArguments a) {
  u8* const shared = reinterpret_cast<u8*>(shared_memory);
  Cells& cells = *reinterpret_cast<Cells*>(shared);
  u8* const hidden = shared + a.hidden_at;
  u32* const mask = reinterpret_cast<u32*>(shared + a.mask_at);
  const u32 unit = blockIdx.x / a.tiles;
  const u32 sample = unit / a.plane_groups, group = unit - sample * a.plane_groups;
  const Tile tile = hide_tile(a, blockIdx.x - unit * a.tiles);

  if (threadIdx.x == 0) {
    const SampleKey* table = 0;
#if SAMPLE_CAPACITY > 0
    table = a.table;
#endif
    draw_grid(cells, a.policy, sample_key(a.keys, table, sample));
    const u32 first = tile.element / a.channels;
    const u32 last = a.tiles_across == 1 ? a.width - 1 : (tile.element + tile.elements - 1) / a.channels;
    locate_cells(cells, tile.y, first, tile.lines, last - first + 1, a.width);
  }
  __syncthreads();
  const bool whole = cells.patch == 0;
  if (IN_PLACE && whole) return;
  if (!whole) hide_cells(cells, a.policy.seed, hidden);
#if INTERLEAVED && FILL == 1
  build_pattern(a, reinterpret_cast<Element*>(shared + a.pattern_at));
#endif
  __syncthreads();
  if (whole) {
    for (u32 i = threadIdx.x; i < (tile.elements + WORD_BITS - 1) / WORD_BITS + 2; i += BLOCK_THREADS) mask[i] = 0;
  } else {
    build_mask(a, cells, tile, hidden, mask);
  }
  __syncthreads();

  const u64 tile_start = (u64)tile.y * a.line_elements + tile.element;
  const u32 end = min(a.planes, (group + 1) * a.planes_per_block);
#pragma unroll 1
  for (u32 plane = group * a.planes_per_block + (threadIdx.x >> a.lane_bits); plane < end;
       plane += BLOCK_THREADS >> a.lane_bits)
    hide_plane(a, tile, mask, ((u64)sample * a.planes + plane) * a.plane_elements + tile_start, plane);
}
#endif  // KERNEL_HIDE

#ifdef KERNEL_RESIZE
// ---- resize_mirror_normalize_hide --------------------------------------------------------------------------

constexpr u32 SEGMENT = SEGMENT_PIXELS;  // of a row: what a warp finishes at a time
constexpr u32 LANE_PIXELS = SEGMENT / WARP_THREADS;
constexpr u32 ALL_LANES = 0xFFFFFFFFu;

struct Image {
  const u8* input;  // (height, width, CHANNELS)
  Element* output;
  u32 height, width;
};

struct ResizeArguments {
  Image image;        // the first one, where there is no table
  u64 input_stride;   // bytes from one image to the next, where there is no table
  u64 output_stride;  // elements
  Keys keys;
  Policy policy;
  float scale[CHANNEL_CAPACITY];
  float shift[CHANNEL_CAPACITY];
  float fill[CHANNEL_CAPACITY];
  u32 out_height, out_width;  // RESAMPLE 0: each image's own
  u32 tiles;                  // per image, of the largest
  u32 tiles_across;
  u32 tile_width, tile_rows;
  u32 column_taps, row_taps;  // how many weights of a pixel the tables hold; later ones are computed when used
  u32 hidden_at, mask_at, columns_at, rows_at, warps_at;  // bytes from the start of shared memory
  u32 warp_bytes;
#if SAMPLE_CAPACITY > 0
  Image images[SAMPLE_CAPACITY];
  SampleKey table[SAMPLE_CAPACITY];
#endif
};

static_assert(sizeof(ResizeArguments) == ARGUMENT_BYTES, "ResizeArguments differs from the layout in launch.py");

// ---- interpolation weights, exact in whole numbers (reference.py) ------------------------------------------

// Output pixel o of an axis is centred at centre / step source pixels; source pixel i weighs
// radius - |i step - centre|, what lies beyond the border is added to the border pixel.
struct Taps {
  i64 centre, step, radius;
  int first, last;  // before the border is applied
  int begin, end;   // source pixels with a weight: begin .. end - 1
  float total;
};

// floor(a / b), b > 0; 64-bit division is slow, so it is avoided where 32 bits do.
DEVICE i64 floor_divide(i64 a, i64 b) {
  const u64 magnitude = a >= 0 ? (u64)a : (u64)(b - 1 - a);
  const u64 quotient = (magnitude | (u64)b) >> 32 ? magnitude / (u64)b : (u64)((u32)magnitude / (u32)b);
  return a >= 0 ? (i64)quotient : -(i64)quotient;
}

DEVICE i64 triangle(const Taps& taps, i64 i) {
  const i64 distance = i * taps.step - taps.centre;
  return taps.radius - (distance < 0 ? -distance : distance);
}

// Sum of the weights of source pixels a .. b, all on one side of the centre.
DEVICE i64 slope_sum(const Taps& taps, i64 a, i64 b) {
  return b < a ? 0 : (triangle(taps, a) + triangle(taps, b)) * (b - a + 1) / 2;
}

DEVICE i64 triangle_sum(const Taps& taps, i64 a, i64 b) {
  const i64 peak = floor_divide(taps.centre, taps.step);
  return slope_sum(taps, a, min(b, peak)) + slope_sum(taps, max(a, peak + 1), b);
}

DEVICE Taps taps_of(u32 in, u32 out, u32 o) {
  Taps taps;
  taps.centre = (i64)(2 * (u64)o + 1) * in - out;
  taps.step = 2 * (i64)out;
  taps.radius = RESAMPLE == 2 ? max(2 * (i64)in, taps.step) : taps.step;
  taps.first = (int)floor_divide(taps.centre - taps.radius, taps.step) + 1;
  taps.last = (int)-floor_divide(-taps.centre - taps.radius, taps.step) - 1;
  taps.begin = max(taps.first, 0);
  taps.end = min(taps.last, (int)in - 1) + 1;
  taps.total = __ll2float_rn(triangle_sum(taps, taps.first, taps.last));
  return taps;
}

DEVICE float tap_weight(const Taps& taps, u32 in, int i) {
  const int low = i == 0 ? taps.first : i, high = i == (int)in - 1 ? taps.last : i;
  const i64 weight = low == high ? triangle(taps, i) : triangle_sum(taps, low, high);
  return __fdiv_rn(__ll2float_rn(weight), taps.total);
}

struct Span {
  int begin, count;
  u32 centre;  // low word
  float total;
  float last_weight;  // the only one beyond the table that may have a border's share in it
};

// Spans and weights of consecutive output pixels of one axis, in shared memory; weight k of pixel e is at
// k * pitch + e.
struct AxisTable {
  Span* spans;
  float* weights;
  u32 pitch, capacity;
  u32 in, out;
  u32 first;  // output pixel of entry 0
  u32 mirror;
};

DEVICE u32 table_output(const AxisTable& table, u32 entry) {
  const u32 o = table.first + entry;
  return table.mirror ? table.out - 1 - o : o;
}

DEVICE void build_entry(const AxisTable& table, u32 entry) {
  const Taps taps = taps_of(table.in, table.out, table_output(table, entry));
  Span span;
  span.begin = taps.begin;
  span.count = taps.end - taps.begin;
  span.centre = (u32)taps.centre;
  span.total = taps.total;
  span.last_weight = tap_weight(taps, table.in, taps.end - 1);
  table.spans[entry] = span;
#pragma unroll 1
  for (int k = 0; k < min(span.count, (int)table.capacity); ++k)
    table.weights[k * table.pitch + entry] = tap_weight(taps, table.in, taps.begin + k);
}

// Both tables in one loop, because the code of an entry is long; chosen by value, because a choice of references
// would put them in local memory.
DEVICE void build_axes(AxisTable across, u32 columns, AxisTable down, u32 rows) {
#pragma unroll 1
  for (u32 e = threadIdx.x; e < columns + rows; e += BLOCK_THREADS) {
    const bool vertical = e >= columns;
    AxisTable table;
    table.spans = vertical ? down.spans : across.spans;
    table.weights = vertical ? down.weights : across.weights;
    table.pitch = vertical ? down.pitch : across.pitch;
    table.capacity = vertical ? down.capacity : across.capacity;
    table.in = vertical ? down.in : across.in;
    table.out = vertical ? down.out : across.out;
    table.first = vertical ? down.first : across.first;
    table.mirror = vertical ? down.mirror : across.mirror;
    build_entry(table, vertical ? e - columns : e);
  }
}

// Weight of a tap beyond the table. Its distance from the centre is below 2^31 whatever the size of the image, so
// the low words suffice.
DEVICE float distant_weight(const AxisTable& table, const Span& span, int k) {
  if (k == span.count - 1) return span.last_weight;
  const int distance = (int)((u32)(span.begin + k) * (2 * table.out) - span.centre);
  return __fdiv_rn((float)((int)(2 * max(table.in, table.out)) - abs(distance)), span.total);
}

// ---- one segment of a row, done by one warp ----------------------------------------------------------------

struct Job {
  const u8* input;
  Element* output;
  u32 line_bytes;  // of the source
  u32 in_width;
  u32 out_height, out_width;
  u32 y, x;  // of the tile
  u32 width, rows;
  u32 mirror;
  const u32* mask;  // hidden bits, whole words for each row of the tile
  u32 mask_pitch;
  AxisTable across, down;
};

typedef float Pixels[LANE_PIXELS][CHANNELS];

#if RESAMPLE == 0
DEVICE void read_pixels(const Job& job, u32 row, u32 x, const bool (&visible)[LANE_PIXELS], u32 lane, float*,
                        Pixels& values) {
  const u8* const line = job.input + (u64)(job.y + row) * job.line_bytes;
#pragma unroll
  for (u32 k = 0; k < LANE_PIXELS; ++k) {
    if (!visible[k]) continue;
    const u32 to = job.x + x + k * WARP_THREADS + lane;
    const u8* const pixel = line + (job.mirror ? job.in_width - 1 - to : to) * CHANNELS;
#pragma unroll
    for (u32 c = 0; c < CHANNELS; ++c) values[k][c] = (float)__ldg(pixel + c);
  }
}

#elif RESAMPLE == 1
struct Pair {
  u32 first, second;
  float weight0, weight1;
};

// The two taps of an output pixel. A single tap is repeated with weight 0, which changes no bit of the result.
DEVICE Pair pair_of(const AxisTable& table, u32 entry) {
  const Span span = table.spans[entry];
  Pair pair;
  pair.first = span.begin;
  pair.second = span.begin + span.count - 1;
  pair.weight0 = table.weights[entry];
  pair.weight1 = span.count > 1 ? table.weights[table.pitch + entry] : 0.0f;
  return pair;
}

DEVICE float blend_two(float weight0, float value0, float weight1, float value1) {
  return __fmaf_rn(weight1, value1, __fmul_rn(weight0, value0));
}

DEVICE void read_pixels(const Job& job, u32 row, u32 x, const bool (&visible)[LANE_PIXELS], u32 lane, float*,
                        Pixels& values) {
  const Pair rows = pair_of(job.down, row);
  const u8* const upper = job.input + (u64)rows.first * job.line_bytes;
  const u8* const lower = job.input + (u64)rows.second * job.line_bytes;
#pragma unroll
  for (u32 k = 0; k < LANE_PIXELS; ++k) {
    if (!visible[k]) continue;
    const Pair columns = pair_of(job.across, x + k * WARP_THREADS + lane);
    const u32 left = columns.first * CHANNELS, right = columns.second * CHANNELS;
#pragma unroll
    for (u32 c = 0; c < CHANNELS; ++c) {
      const float a = blend_two(rows.weight0, __ldg(upper + left + c), rows.weight1, __ldg(lower + left + c));
      const float b = blend_two(rows.weight0, __ldg(upper + right + c), rows.weight1, __ldg(lower + right + c));
      values[k][c] = blend_two(columns.weight0, a, columns.weight1, b);
    }
  }
}

#else
constexpr u32 CHUNK = 128;              // source columns that a warp blends vertically at a time
constexpr u32 CHUNK_PITCH = CHUNK + 11;  // spreads the channels of 11 neighbouring columns over all banks

DEVICE u32 warp_or(u32 bits) {
#if __CUDA_ARCH__ >= 800
  return __reduce_or_sync(ALL_LANES, bits);
#else
#pragma unroll
  for (u32 step = WARP_THREADS / 2; step; step /= 2) bits |= __shfl_xor_sync(ALL_LANES, bits, step);
  return bits;
#endif
}

// Which of the 32 source columns from `start` on a pixel needs.
DEVICE u32 span_bits(const Span& span, int start) {
  const int low = max(span.begin - start, 0), high = min(span.begin + span.count - start, (int)WORD_BITS);
  return low < high ? (0xFFFFFFFFu >> (WORD_BITS - (high - low))) << low : 0;
}

// Vertical blend of the needed ones of 32 source columns: one byte of a source line per lane and step.
DEVICE void blend_columns(const Job& job, u32 row, u32 lane, u32 needed, int start, float* to) {
  const Span span = job.down.spans[row];
  const int known = min(span.count, (int)job.down.capacity);
  const u8* const line = job.input + (u64)span.begin * job.line_bytes + (u32)start * CHANNELS;
#pragma unroll
  for (u32 step = 0; step < CHANNELS; ++step) {
    const u32 i = step * WARP_THREADS + lane, column = i / CHANNELS;
    if (!(needed >> column & 1u)) continue;
    const u8* byte = line + i;
    float value = 0.0f;
    for (int k = 0; k < known; ++k, byte += job.line_bytes)
      value = __fmaf_rn(job.down.weights[k * job.down.pitch + row], (float)__ldg(byte), value);
#pragma unroll 1
    for (int k = known; k < span.count; ++k, byte += job.line_bytes)
      value = __fmaf_rn(distant_weight(job.down, span, k), (float)__ldg(byte), value);
    to[(i - column * CHANNELS) * CHUNK_PITCH + column] = value;
  }
}

DEVICE void add_tap(float weight, const float* column, float (&sums)[CHANNELS]) {
#pragma unroll
  for (u32 c = 0; c < CHANNELS; ++c) sums[c] = __fmaf_rn(weight, column[c * CHUNK_PITCH], sums[c]);
}

// Horizontal blend: adds the taps of one pixel that lie in the chunk.
DEVICE void add_chunk(const Job& job, const Span& span, u32 entry, int chunk, const float* columns,
                      float (&sums)[CHANNELS]) {
  const float* const column = columns + (span.begin - chunk);
  const int end = min(span.count, chunk + (int)CHUNK - span.begin);
  const int known = min(end, (int)job.across.capacity);
  int k = max(0, chunk - span.begin);
  for (; k < known; ++k) add_tap(job.across.weights[k * job.across.pitch + entry], column + k, sums);
#pragma unroll 1
  for (; k < end; ++k) add_tap(distant_weight(job.across, span, k), column + k, sums);
}

DEVICE void read_pixels(const Job& job, u32 row, u32 x, const bool (&visible)[LANE_PIXELS], u32 lane, float* columns,
                        Pixels& values) {
  Span spans[LANE_PIXELS];
#pragma unroll
  for (u32 k = 0; k < LANE_PIXELS; ++k) {
    spans[k] = Span();  // needs nothing
    if (visible[k]) spans[k] = job.across.spans[x + k * WARP_THREADS + lane];
#pragma unroll
    for (u32 c = 0; c < CHANNELS; ++c) values[k][c] = 0.0f;
  }
  const Span one = job.across.spans[x], other = job.across.spans[min(x + SEGMENT, job.width) - 1];
  const int end = max(one.begin + one.count, other.begin + other.count);
  for (int chunk = min(one.begin, other.begin); chunk < end; chunk += CHUNK) {
    for (int start = chunk; start < min(chunk + (int)CHUNK, end); start += WORD_BITS) {
      u32 bits = 0;
#pragma unroll
      for (u32 k = 0; k < LANE_PIXELS; ++k) bits |= span_bits(spans[k], start);
      const u32 needed = warp_or(bits);
      if (needed) blend_columns(job, row, lane, needed, start, columns + (start - chunk));
    }
    __syncwarp();
#pragma unroll
    for (u32 k = 0; k < LANE_PIXELS; ++k)
      if (visible[k]) add_chunk(job, spans[k], x + k * WARP_THREADS + lane, chunk, columns, values[k]);
    __syncwarp();
  }
}
#endif  // RESAMPLE

// ---- from float32 to the output ----------------------------------------------------------------------------

DEVICE Element encode(float value) {
#if OUTPUT == 0
  return __float_as_uint(value);
#elif OUTPUT == 1
  return half_bits(value);
#else
  const u32 bits = __float_as_uint(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;  // NaN
  return (Element)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);  // bfloat16: round to nearest, ties to even
#endif
}

constexpr u32 PLANES = INTERLEAVED ? 1 : CHANNELS;
constexpr u32 PLANE_SEGMENT = INTERLEAVED ? SEGMENT * CHANNELS : SEGMENT;       // elements
constexpr u32 STAGE_PITCH = PLANE_SEGMENT + (ACCESS == 16 ? 0 : VECTOR);         // room for the skew
constexpr u32 STAGE_VECTORS = STAGE_PITCH / VECTOR;

DEVICE Element* segment_output(const Job& job, u32 row, u32 x, u32 plane) {
  const u64 line = (u64)plane * job.out_height + job.y + row;
  return job.output + (line * job.out_width + job.x + x) * (INTERLEAVED ? CHANNELS : 1);
}

// Elements by which an address lies behind a 16-byte boundary; staged values are shifted by as much.
DEVICE u32 skew_of(const Element* address) {
  return ACCESS == 16 ? 0 : (u32)(reinterpret_cast<u64>(address) % VECTOR_BYTES / sizeof(Element));
}

DEVICE void stage_pixels(const ResizeArguments& a, const Job& job, u32 row, u32 x, u32 count,
                         const bool (&visible)[LANE_PIXELS], u32 lane, const Pixels& values, Element* stage) {
#pragma unroll
  for (u32 c = 0; c < CHANNELS; ++c) {
    const u32 at = (INTERLEAVED ? c : c * STAGE_PITCH) + skew_of(segment_output(job, row, x, INTERLEAVED ? 0 : c));
#pragma unroll
    for (u32 k = 0; k < LANE_PIXELS; ++k) {
      const u32 pixel = k * WARP_THREADS + lane;
      if (pixel >= count) continue;
      const float value = visible[k] ? __fmaf_rn(values[k][c], a.scale[c], a.shift[c]) : a.fill[c];
      stage[at + pixel * (INTERLEAVED ? CHANNELS : 1)] = encode(value);
    }
  }
}

DEVICE void store_segment(const Job& job, u32 row, u32 x, u32 count, u32 lane, const Element* stage) {
  const int elements = INTERLEAVED ? count * CHANNELS : count;
#pragma unroll 1
  for (u32 i = lane; i < PLANES * STAGE_VECTORS; i += WARP_THREADS) {
    const u32 plane = i / STAGE_VECTORS;
    Element* const start = segment_output(job, row, x, plane);
    const int position = (int)((i - plane * STAGE_VECTORS) * VECTOR) - (int)skew_of(start);
    if (position >= elements) continue;
    if (ACCESS == 16 || (position >= 0 && position + (int)VECTOR <= elements)) {
      *reinterpret_cast<uint4*>(start + position) = reinterpret_cast<const uint4*>(stage)[i];
    } else {
      for (int e = max(-position, 0); e < min((int)VECTOR, elements - position); ++e)
        start[position + e] = stage[i * VECTOR + e];
    }
  }
}

DEVICE void finish_segment(const ResizeArguments& a, const Job& job, u32 row, u32 x, u32 lane, Element* stage,
                           float* columns) {
  const u32 count = min(SEGMENT, job.width - x);
  bool visible[LANE_PIXELS];
#pragma unroll
  for (u32 k = 0; k < LANE_PIXELS; ++k) {
    const u32 pixel = k * WARP_THREADS + lane;
    visible[k] = pixel < count && !(job.mask[row * job.mask_pitch + (x + pixel) / WORD_BITS] >> lane & 1u);
  }
  Pixels values;
  read_pixels(job, row, x, visible, lane, columns, values);
  stage_pixels(a, job, row, x, count, visible, lane, values, stage);
  __syncwarp();
  store_segment(job, row, x, count, lane, stage);
  __syncwarp();
}

// ---- the tile of a block -----------------------------------------------------------------------------------

DEVICE Image image_of(const ResizeArguments& a, u32 sample) {
#if SAMPLE_CAPACITY > 0
  return a.images[sample];
#else
  Image image = a.image;
  image.input += sample * a.input_stride;
  image.output += sample * a.output_stride;
  return image;
#endif
}

DEVICE Job job_of(const ResizeArguments& a, const Image& image, u32 tile) {
  const u32 down = tile / a.tiles_across, across = tile - down * a.tiles_across;
  Job job;
  job.input = image.input;
  job.output = image.output;
  job.line_bytes = image.width * CHANNELS;
  job.in_width = image.width;
  job.out_height = RESAMPLE == 0 ? image.height : a.out_height;
  job.out_width = RESAMPLE == 0 ? image.width : a.out_width;
  job.y = down * a.tile_rows;
  job.x = across * a.tile_width;
  job.rows = job.y < job.out_height ? min(a.tile_rows, job.out_height - job.y) : 0;
  job.width = job.x < job.out_width ? min(a.tile_width, job.out_width - job.x) : 0;
  return job;
}

// Hidden bits of the tile, each row in words of its own.
DEVICE void build_row_masks(const Job& job, const Cells& cells, const u8* hidden, u32* mask) {
  for (u32 i = threadIdx.x; i < job.rows * job.mask_pitch; i += BLOCK_THREADS) {
    const u32 row = i / job.mask_pitch, x = (i - row * job.mask_pitch) * WORD_BITS;
    if (cells.patch == 0) {
      mask[i] = 0;
    } else {
      u32 left = job.width - x;
      Walk walk = walk_from(cells, job.y + row, job.x + x, 1, job.out_width);
      mask[i] = walk_word(walk, cells, hidden, 1, job.out_width, left);
    }
  }
}

DEVICE AxisTable axis_table(u8* at, u32 entries, u32 capacity, u32 in, u32 out, u32 first, u32 mirror) {
  AxisTable table;
  table.spans = reinterpret_cast<Span*>(at);
  table.weights = reinterpret_cast<float*>(table.spans + entries);
  table.pitch = entries;
  table.capacity = capacity;
  table.in = in;
  table.out = out;
  table.first = first;
  table.mirror = mirror;
  return table;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIZE_BLOCKS_PER_SM)
resize_mirror_normalize_hide(const __grid_constant__ ResizeArguments a) {
  u8* const shared = reinterpret_cast<u8*>(shared_memory);
  Cells& cells = *reinterpret_cast<Cells*>(shared);
  u8* const hidden = shared + a.hidden_at;
  u32* const mask = reinterpret_cast<u32*>(shared + a.mask_at);
  const u32 sample = blockIdx.x / a.tiles;
  const Image image = image_of(a, sample);
  Job job = job_of(a, image, blockIdx.x - sample * a.tiles);
  if (job.rows == 0 || job.width == 0) return;  // this image has fewer tiles than the largest

  if (threadIdx.x == 0) {
    const SampleKey* table = 0;
#if SAMPLE_CAPACITY > 0
    table = a.table;
#endif
    draw_grid(cells, a.policy, sample_key(a.keys, table, sample));
    locate_cells(cells, job.y, job.x, job.rows, job.width, job.out_width);
  }
  __syncthreads();
  job.mirror = cells.mirror;
  job.mask = mask;
  job.mask_pitch = (job.width + WORD_BITS - 1) / WORD_BITS;
#if RESAMPLE != 0
  job.across = axis_table(shared + a.columns_at, a.tile_width, a.column_taps, image.width, a.out_width, job.x,
                          job.mirror);
  job.down = axis_table(shared + a.rows_at, a.tile_rows, a.row_taps, image.height, a.out_height, job.y, 0);
  build_axes(job.across, job.width, job.down, job.rows);
#endif
  if (cells.patch != 0) hide_cells(cells, a.policy.seed, hidden);
  __syncthreads();
  build_row_masks(job, cells, hidden, mask);
  __syncthreads();

  const u32 warp = threadIdx.x / WARP_THREADS, lane = threadIdx.x % WARP_THREADS;
  Element* const stage = reinterpret_cast<Element*>(shared + a.warps_at + warp * a.warp_bytes);
  float* const columns = reinterpret_cast<float*>(stage + PLANES * STAGE_PITCH);
  const u32 segments = (job.width + SEGMENT - 1) / SEGMENT;
  for (u32 row = 0, segment = warp;; segment += BLOCK_WARPS) {
    for (; segment >= segments; segment -= segments) ++row;
    if (row >= job.rows) break;
    finish_segment(a, job, row, segment * SEGMENT, lane, stage, columns);
  }
}
#endif  // KERNEL_RESIZE
