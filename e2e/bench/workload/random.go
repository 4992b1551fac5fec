package workload

import (
	"math"
	"math/bits"
)

// Random is the Mersenne Twister MT19937 as CPython's module random seeds and draws it: so the documents are the same bytes as
// those that a Python program of the same draws makes.
type Random struct {
	state [624]uint32
	next  int
}

// NewRandom is random.Random(seed).
func NewRandom(seed uint32) *Random {
	const n = 624
	r := &Random{next: n}
	s := &r.state
	s[0] = 19650218
	for i := uint32(1); i < n; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + i
	}
	i := 1
	step := func() {
		if i++; i == n {
			s[0], i = s[n-1], 1
		}
	}
	for range n { // init_by_array of one number
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1664525) + seed
		step()
	}
	for range n - 1 {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1566083941) - uint32(i)
		step()
	}
	s[0] = 1 << 31
	return r
}

func (r *Random) uint32() uint32 {
	const n, m = 624, 397
	if r.next == n {
		s := &r.state
		for i := range s {
			y := s[i]&(1<<31) | s[(i+1)%n]&(1<<31-1)
			s[i] = s[(i+m)%n] ^ y>>1 ^ -(y&1)&0x9908b0df
		}
		r.next = 0
	}
	y := r.state[r.next]
	r.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// Float is in [0, 1).
func (r *Random) Float() float64 {
	a, b := r.uint32()>>5, r.uint32()>>6
	return (float64(a)*(1<<26) + float64(b)) / (1 << 53)
}

// To is int(random() * n).
func (r *Random) To(n float64) int { return int(r.Float() * n) }

// Below is uniform in [0, n), n < 2^32, as CPython draws for choice, randint, shuffle and sample.
func (r *Random) Below(n int) int {
	k := bits.Len(uint(n))
	for {
		if v := int(r.uint32() >> (32 - k)); v < n {
			return v
		}
	}
}

// Shuffle shuffles in place.
func (r *Random) Shuffle(k []int) {
	for i := len(k) - 1; i > 0; i-- {
		j := r.Below(i + 1)
		k[i], k[j] = k[j], k[i]
	}
}

// Sample returns k different indices below n.
func (r *Random) Sample(n, k int) []int {
	out := make([]int, k)
	setSize := 21
	if k > 5 {
		setSize += 1 << (2 * int(math.Ceil(math.Log(float64(k)*3)/math.Log(4))))
	}
	if n <= setSize {
		pool := make([]int, n)
		for i := range pool {
			pool[i] = i
		}
		for i := range out {
			j := r.Below(n - i)
			out[i], pool[j] = pool[j], pool[n-i-1]
		}
		return out
	}
	seen := make(map[int]bool, k)
	for i := range out {
		j := r.Below(n)
		for seen[j] {
			j = r.Below(n)
		}
		seen[j] = true
		out[i] = j
	}
	return out
}
