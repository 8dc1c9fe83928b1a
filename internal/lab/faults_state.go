// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// stateFaults are those of what netfilter remembers, and of what it hands to user space.
func stateFaults() []Fault {
	return slices.Concat(userQueueFaults(), invalidFaults(), proxyFaults())
}

// reading starts a reader of the queue that the rules of this file use.
func reading(r Role, drop bool) func(*Lab) error {
	return func(l *Lab) error { return l.ReadQueue(r, Reader{Queue: 17, Drop: drop}) }
}

func userQueueFaults() []Fault {
	queued := func(backend, name, summary string, r Role, hook, line string, number int, direction string, read bool) []Fault {
		faults := iptablesFault(backend, name, "nfqueue-unread", summary, r, hook, line, "filter", number, "NFQUEUE", hook)
		for i := range faults {
			f := &faults[i]
			f.Want.Direction = direction
			if read {
				f.Cause, f.Want.Comm = "nfqueue-drop", "queued"
				f.Setup = steps(f.Setup, reading(r, true))
			}
		}
		return faults
	}
	all := []Fault{}
	for _, b := range []string{"legacy", "nft"} {
		all = slices.Concat(all,
			queued(b, "nfqueue-unread", "a rule hands it to a program that does not run", Server, "INPUT", `
				-A INPUT -i lo -j ACCEPT
				-A INPUT -p tcp --dport %port -j NFQUEUE --queue-num 17`, 2, forward, false),
			queued(b, "nfqueue-unread-forward", "the router hands it to a program that does not run", Router, "FORWARD", `
				-A FORWARD -p tcp --dport %port -j NFQUEUE --queue-num 17`, 1, forward, false),
			queued(b, "nfqueue-drop", "a program that reads the queue drops it", Server, "INPUT", `
				-A INPUT -p tcp --dport %port -j NFQUEUE --queue-num 17`, 1, forward, true),
			queued(b, "nfqueue-drop-reply", "a program of the router drops the answer", Router, "FORWARD", `
				-A FORWARD -p tcp --sport %port -j NFQUEUE --queue-num 17`, 1, reply, true),
		)
	}
	return all
}

// invalidFaults: conntrack did not see the request, so the answer fits no connection it knows.
func invalidFaults() []Fault {
	all := nftFault("ct-invalid-reply", "firewall-drop", "the router tracks answers only, and drops them as invalid", Router, "FORWARD", `
		table inet state {
			chain early { type filter hook prerouting priority raw; policy accept; iifname "lan0" notrack; }
			chain pass { type filter hook forward priority filter; policy accept; ct state established accept; ct state invalid counter drop; }
		}`, inet("state", 2, "ct state invalid", "pass"))
	legacy := iptablesFault("legacy", "ct-invalid-reply", "firewall-drop", "the router tracks answers only, and its iptables drops them as invalid", Router, "FORWARD", `
		-t raw -A PREROUTING -i lan0 -j NOTRACK
		-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
		-A FORWARD -m conntrack --ctstate INVALID -j DROP`, "filter", 2, "INVALID", "FORWARD")
	all = append(all, legacy...)
	client := nftFault("ct-invalid-client", "firewall-drop", "the client tracks answers only, and drops them as invalid", Client, "INPUT", `
		table inet state {
			chain early { type filter hook output priority raw; policy accept; tcp dport %port notrack; }
			chain guard { type filter hook input priority filter; policy accept; ct state invalid drop; }
		}`, inet("state", 1, "ct state invalid", "guard"))
	all = append(all, client...)
	for i := range all {
		all[i].Want.Direction = reply
	}
	return all
}

// synproxied has the router answer SYNs in the server's name, and connect on once a client has proven itself.
const synproxied = `
	table inet proxy {
		chain early { type filter hook prerouting priority raw; policy accept; iifname "lan0" tcp dport %port tcp flags syn notrack; }
		chain pass { type filter hook forward priority filter; policy accept; tcp dport %port ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm; ct state invalid drop; }
	}`

func proxyFaults() []Fault {
	return both(func(f int) Fault {
		return Fault{Name: "synproxy-input", Cause: "firewall-drop", Summary: "a SYN proxy answers for a server that drops the connection", Tools: []string{"nft"},
			Setup: steps(serve(f), sysctl(Router, "net.netfilter.nf_conntrack_tcp_loose", "0"), nft(Router, f, synproxied),
				nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept; tcp dport %port drop; }; }`)),
			Want: Want{Direction: forward, Role: Server, Hook: "INPUT", Rule: nftRule("inet", "edge", 1, "", "guard")},
			Sees: []error{nil}} // the proxy's answer
	})
}
