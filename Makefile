# Each target is one script; read those. `make help` lists them.
.PHONY: help setup demo lab test lint unit sanity integration molecule bench clean

help:         ## this list
	@sed -nE 's/^([a-z]+): *## (.*)/  make \1\t\2/p' Makefile | expand -t 22

setup:        ## the distribution's packages and the tool environments
	scripts/install-packages
	scripts/setup

demo:         ## two lab hosts become KVM hosts with a running guest; a second run changes nothing
	scripts/demo

lab:          ## two emulated hosts with SR-IOV, NUMA, IOMMU and nested KVM, and an inventory for them
	scripts/lab

test:         ## everything, quick things first
	scripts/test

lint:         ## what can be checked by reading
	scripts/lint

unit:         ## rings 1 and 2: laws of the tables, golden cases
	scripts/unit newest
	scripts/unit oldest

sanity:       ## ansible-test sanity and units
	scripts/sanity

integration:  ## ring 3: the modules on a real libvirt
	scripts/integration newest
	scripts/integration oldest

molecule:     ## ring 4: the roles on lab hosts
	scripts/molecule

bench:        ## what the modules cost next to plain libvirt; needs a machine that does nothing else
	scripts/bench

clean:        ## remove the lab and all that was made in the checkout
	scripts/clean
