// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

const nftName = 256 // NFT_NAME_MAXLEN

// Flags of kindNFT, bpf/event.h.
const (
	nftPolicy = 1
	nftUntold = 2
)

// rule decodes a step that nft_do_chain took, struct nft_event: the names stand behind the fixed part.
func (d *decoder) rule(s *sample, raw []byte) (Record, error) {
	names := raw[sampleSize:]
	if len(names) < 3*nftName {
		return Record{}, fmt.Errorf("ring buffer record of a rule of %d bytes, %d expected", len(raw), sampleSize+3*nftName)
	}
	e, err := d.event(s)
	if err != nil {
		return Record{}, err
	}
	e.Hook = hookName(s.Pf, s.TracepointEvent.Hook)
	e.PID, e.Comm = 0, "" // the task that the packet happened to interrupt
	step := evidence.RuleStep{
		Backend: "nft", Family: familyName(s.Count), Table: cstring(names[:nftName]), Chain: cstring(names[nftName : 2*nftName]),
		Target: cstring(names[2*nftName : 3*nftName]), Handle: s.Function, Verdict: verdictName(s.Err),
	}
	if s.XtFlags&nftUntold != 0 {
		return Record{Unseen: fmt.Sprintf("%s: %s %s %s: which rule gave the verdict %s at %s was not seen",
			e.Netns, step.Family, step.Table, step.Chain, step.Verdict, e.Hook)}, nil
	}
	step.Policy = s.XtFlags&nftPolicy != 0
	e.Rule = &step
	return Record{Event: e}, nil
}
