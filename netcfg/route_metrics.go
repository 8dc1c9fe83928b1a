// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockable are the metrics that ip can lock; rto_min always is.
const lockable = 1<<unix.RTAX_MTU | 1<<unix.RTAX_WINDOW | 1<<unix.RTAX_RTT | 1<<unix.RTAX_RTTVAR | 1<<unix.RTAX_SSTHRESH |
	1<<unix.RTAX_CWND | 1<<unix.RTAX_ADVMSS | 1<<unix.RTAX_REORDERING | 1<<unix.RTAX_HOPLIMIT | 1<<unix.RTAX_CC_ALGO

// highest are the values that the kernel cuts larger ones down to (ip_metrics_convert).
var highest = map[int]uint32{unix.RTAX_MTU: 65535 - 15, unix.RTAX_ADVMSS: 65535 - 40, unix.RTAX_HOPLIMIT: 255}

// metric reads [lock] VALUE for an element of RTA_METRICS.
func (p *routeReader) metric(kind int, keyword string) error {
	if 1<<kind&lockable != 0 && p.accept("lock") || kind == unix.RTAX_RTO_MIN {
		p.locked |= 1 << kind
	}
	value, err := p.value(keyword)
	if err != nil {
		return err
	}
	var n uint32
	switch kind {
	case unix.RTAX_CC_ALGO:
		if len(value) > 15 { // TCP_CA_NAME_MAX
			return badWord(value, "not the name of a congestion control")
		}
		p.metrics = putText(p.metrics, uint16(kind), value)
		return nil
	case unix.RTAX_FEATURES:
		n = unix.RTAX_FEATURE_ECN
		if value != "ecn" {
			n, err = number(value, 32)
		}
	case unix.RTAX_RTT, unix.RTAX_RTTVAR, unix.RTAX_RTO_MIN:
		n, err = milliseconds(value, map[int]uint32{unix.RTAX_RTT: 8, unix.RTAX_RTTVAR: 4, unix.RTAX_RTO_MIN: 1}[kind])
	default:
		n, err = number(value, 32)
		if most := highest[kind]; err == nil && most != 0 && n > most {
			err = badWord(value, "%s is at most %d", keyword, most)
		}
	}
	p.metrics = put32(p.metrics, uint16(kind), n)
	return err
}

// milliseconds reads a time with its unit, s or ms, in units of so many to a
// millisecond; a number alone is taken as it is.
func milliseconds(word string, scale uint32) (uint32, error) {
	unit := float64(scale)
	text := word
	switch {
	case strings.HasSuffix(word, "ms"):
		text = strings.TrimSuffix(word, "ms")
	case strings.HasSuffix(word, "s"):
		text, unit = strings.TrimSuffix(word, "s"), unit*1000
	default:
		return number(word, 32)
	}
	f, err := strconv.ParseFloat(text, 64)
	if n := math.Round(f * unit); err == nil && n >= 0 && n <= math.MaxUint32 {
		return uint32(n), nil
	}
	return 0, badWord(word, "not a time such as 300ms or 1s")
}
