// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// behaves is a service that accepts, or does not, and then does something else than to serve.
func behaves(name, cause, summary string, b Behaviour, proof ...string) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: cause, Summary: summary, Args: []string{"--send", "hello", "--expect", ".", "-w", "1s"},
			Setup: func(l *Lab) error {
				return l.Serve(Server, Listen{Addr: serverAt(f), Comm: "ledger", Behaviour: b})
			},
			Want: Want{Direction: reply, Role: Server, Comm: "ledger", Proof: proof}}
	})
}

// endingFaults are services that end the connection, or leave it without an answer.
func endingFaults() []Fault {
	return slices.Concat(
		behaves("ends-by-exit", "closed-by-app", "the service ends when it has accepted", ExitAtOnce, "the process ended, with exit code 3"),
		behaves("ends-by-signal", "closed-by-app", "the service is killed when it has accepted", DieAtOnce, "the process was killed by SIGKILL"),
		behaves("ends-by-linger", "reset-by-app", "the service resets what it has accepted", ResetAtOnce, "SO_LINGER with a time of 0 was set"),
		behaves("stopped", "app-silent", "the service is stopped", Stopped, "ledger (pid", "is stopped by a signal", "no process has accepted the connection"),
		behaves("never-accepts", "app-silent", "the service does not accept", NeverAccept, "sleeps (state S), in the kernel at", "no process has accepted the connection"),
		behaves("mute", "app-silent", "the service accepts and says nothing", Hold, "has accepted the connection"),
	)
}
