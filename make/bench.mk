##@ Speed

# AGAINST names another libvfio-user.so.0; BENCH has more arguments, such as BENCH="--quick --rows read,translate".
AGAINST ?=
BENCH ?=

.PHONY: bench
bench: build $(VENV)/.plugin ## speed against the floor (AGAINST=other/libvfio-user.so.0 BENCH="--quick")
	$(PY) benches/run.py --library $(CARGO_TARGET_DIR)/release/libvfio_user.so --out build/bench \
	  $(if $(AGAINST),--against $(AGAINST)) $(BENCH)
