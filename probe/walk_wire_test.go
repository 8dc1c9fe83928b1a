// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func walkFlows() []walkFlow {
	var out []walkFlow
	for _, protocol := range []string{"tcp", "udp", "icmp"} {
		for _, a := range [][2]string{{"192.0.2.1:40000", "198.51.100.9:80"}, {"[2001:db8::1]:40000", "[2001:db8:9::9]:80"}} {
			out = append(out, walkFlow{
				protocol: protocol, local: netip.MustParseAddrPort(a[0]), remote: netip.MustParseAddrPort(a[1]), base: 0xfffffff0, limit: numbers, payload: []byte("odd"),
			})
		}
	}
	return out
}

// Every packet is told by what an ICMP error quotes of it, and a load-balanced
// path is chosen by nothing that changes from one to the next.
func TestWalkPacketsAreTold(t *testing.T) {
	for _, f := range walkFlows() {
		quoted, checksum := f.quoted4, map[uint16]bool{}
		header, length := 20, 28
		if f.v6() {
			quoted, header, length = f.quoted6, 40, 1232
		}
		for ttl := 1; ttl <= maxTTL; ttl++ {
			n := number(ttl, ttl%maxTries)
			for _, size := range []int{0, 1500} {
				b, err := f.packet(n, ttl, size)
				if err != nil {
					t.Fatal(err)
				}
				if len(b) < size {
					t.Errorf("%s: %d bytes, want %d", f.protocol, len(b), size)
				}
				if got, ok := quoted(b[:min(len(b), length)]); !ok || got != n {
					t.Errorf("%s to %s: packet %d of %d bytes read as %d, %v", f.protocol, f.remote, n, size, got, ok)
				}
				if size == 0 && f.protocol == "icmp" {
					checksum[binary.BigEndian.Uint16(b[header+2:])] = true
				}
			}
		}
		if len(checksum) > 1 {
			t.Errorf("echo requests to %s have %d checksums", f.remote, len(checksum))
		}
	}
}

// Whatever comes in: no crash, and no number that was never sent.
func FuzzWalkAnswers(f *testing.F) {
	for _, w := range walkFlows() {
		b, err := w.packet(number(3, 1), 3, 0)
		if err != nil {
			f.Fatal(err)
		}
		for _, kind := range []byte{0, 1, 2, 3, 11, 12, 129} {
			f.Add(append([]byte{kind, 4, 0, 0, 0, 0, 5, 0}, b...))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, w := range walkFlows() {
			for _, read := range []func([]byte) (reading, bool){w.icmp, w.answer} {
				if r, ok := read(b); ok && r.n != 0 && !w.valid(r.n) || ok && (r.hop.Answer == "" || r.hop.MTU > 1<<16) {
					t.Errorf("%s: %+v", w.protocol, r)
				}
			}
		}
		networkHeader(b)
		hopLimit(b)
	})
}
