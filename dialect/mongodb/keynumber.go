package mongodb

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// A number's key is the greatest double that is not above it, as 8 bytes that sort as doubles do, and a suffix: 0 if
// the number is that double, else 1 and the number's decimal digits. Integers and decimals that no double holds share
// the decimal form, so equal values have equal keys whatever their types. NaN, of any kind, sorts first.

const (
	numberExact   byte = 0
	numberInexact byte = 1
)

// appendNumber appends the key of a value that is a double.
func appendNumber(dst []byte, f float64) []byte {
	return append(binary.BigEndian.AppendUint64(dst, orderedBits(f)), numberExact)
}

// orderedBits maps doubles to integers of the same order; both zeros are one, and so is every NaN.
func orderedBits(f float64) uint64 {
	if f != f {
		return 0
	}
	b := math.Float64bits(f + 0) // -0 + 0 is 0
	if b>>63 != 0 {
		return ^b
	}
	return b | 1<<63
}

func appendInt64(dst []byte, v int64) []byte {
	const exactMax = 1 << 53
	f := float64(v)
	if v >= -exactMax && v <= exactMax {
		return appendNumber(dst, f)
	}
	// f may be 2^63, which no int64 holds: it is above v then.
	if f < 1<<63 && int64(f) == v {
		return appendNumber(dst, f)
	}
	if f >= 1<<63 || int64(f) > v {
		f = math.Nextafter(f, math.Inf(-1))
	}
	u := uint64(v)
	if v < 0 {
		u = -u
	}
	return appendInexact(dst, f, decimal{negative: v < 0, lo: u})
}

// decimal is the finite number (hi*2^64 + lo) * 10^exp, with a sign.
type decimal struct {
	negative bool
	hi, lo   uint64
	exp      int
}

// Limits of the BID encoding of Decimal128.
const (
	decimalBias  = 6176
	coeffHighMax = 542101086242752     // 10^34 - 1 = coeffHighMax * 2^64 + coeffLowMax
	coeffLowMax  = 4003012203950112767 //
	decimalInf   = uint64(0x78) << 56  // after masking with decimalMask
	decimalNaN   = uint64(0x7C) << 56  //
	decimalMask  = uint64(0x7C) << 56  // five combination bits
	decimalLarge = uint64(3) << 61     // coefficients above 10^34-1: not canonical, zero
	decimalCoeff = uint64(1)<<49 - 1   // high bits of the coefficient
	decimalShift = 49                  // place of the exponent in the high word
	decimalExp   = uint64(1)<<14 - 1   //
	signBit      = uint64(1) << 63     //
)

func appendDecimal(dst []byte, hi, lo uint64) []byte {
	negative := hi&signBit != 0
	switch hi & decimalMask {
	case decimalNaN:
		return appendNumber(dst, math.NaN())
	case decimalInf:
		if negative {
			return appendNumber(dst, math.Inf(-1))
		}
		return appendNumber(dst, math.Inf(1))
	}
	d := decimal{negative: negative, hi: hi & decimalCoeff, lo: lo, exp: int(hi>>decimalShift&decimalExp) - decimalBias}
	if hi&decimalLarge == decimalLarge || d.hi > coeffHighMax || d.hi == coeffHighMax && d.lo > coeffLowMax {
		d.hi, d.lo = 0, 0
	}
	if d.hi == 0 && d.lo == 0 {
		return appendNumber(dst, 0)
	}
	// Powers of ten up to 10^22 and coefficients up to 2^53 are doubles, so is their product if it stays below 2^53.
	if d.hi == 0 && d.exp == 0 && d.lo <= 1<<53 {
		f := float64(d.lo)
		if negative {
			f = -f
		}
		return appendNumber(dst, f)
	}
	f, exact := d.floor()
	if exact {
		return appendNumber(dst, f)
	}
	return appendInexact(dst, f, d)
}

// floor returns the greatest double that is not above d, and whether it is d.
func (d *decimal) floor() (f float64, exact bool) {
	var buf [64]byte
	text := buf[:0]
	if d.negative {
		text = append(text, '-')
	}
	var digits [40]byte
	text = append(text, d.digits(digits[:0])...)
	text = strconv.AppendInt(append(text, 'e'), int64(d.exp), 10)
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		// Out of the range of doubles, on the side of its sign.
		if d.negative {
			return math.Inf(-1), false
		}
		return math.MaxFloat64, false
	}
	switch d.compare(f) {
	case 0:
		return f, true
	case -1:
		return math.Nextafter(f, math.Inf(-1)), false
	}
	return f, false
}

// compare compares d with the finite double f, exactly.
func (d *decimal) compare(f float64) int {
	left := new(big.Int).SetUint64(d.hi)
	left.Lsh(left, 64).Add(left, new(big.Int).SetUint64(d.lo))
	if d.negative {
		left.Neg(left)
	}
	b := math.Float64bits(f)
	mantissa, exp := int64(b&(1<<52-1)), int(b>>52&0x7FF)
	if exp == 0 {
		exp = 1
	} else {
		mantissa |= 1 << 52
	}
	exp -= 1075
	if b>>63 != 0 {
		mantissa = -mantissa
	}
	right := big.NewInt(mantissa)
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(d.exp, -d.exp))), nil)
	if d.exp >= 0 {
		left.Mul(left, power)
	} else {
		right.Mul(right, power)
	}
	if exp >= 0 {
		right.Lsh(right, uint(exp))
	} else {
		left.Lsh(left, uint(-exp))
	}
	return left.Cmp(right)
}

// digits appends the decimal digits of the coefficient, without leading zeros.
func (d *decimal) digits(dst []byte) []byte {
	const tenTo19 = 10_000_000_000_000_000_000
	if d.hi == 0 {
		return strconv.AppendUint(dst, d.lo, 10)
	}
	// A coefficient has at most 34 digits, so the quotient by 10^19 fits a word.
	q, r := bits.Div64(d.hi, d.lo, tenTo19)
	dst = strconv.AppendUint(dst, q, 10)
	n := len(dst)
	for range 19 {
		dst = append(dst, '0')
	}
	for i := n + 18; r > 0; i-- {
		dst[i] = byte('0' + r%10)
		r /= 10
	}
	return dst
}

// appendInexact appends the key of a number above the double f: f, the exponent of its first digit and its digits
// without trailing zeros, two to a byte. Bytes are turned round for negative numbers so that keys sort as values do.
func appendInexact(dst []byte, f float64, d decimal) []byte {
	dst = append(binary.BigEndian.AppendUint64(dst, orderedBits(f)), numberInexact)
	var buf [40]byte
	digits := d.digits(buf[:0])
	exp := d.exp + len(digits)
	for len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, uint16(exp+1<<14))
	for i := 0; i < len(digits); i += 2 {
		pair := (digits[i] - '0') * 10
		if i+1 < len(digits) {
			pair += digits[i+1] - '0'
		}
		dst = append(dst, pair+1)
	}
	dst = append(dst, 0)
	if d.negative {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}
