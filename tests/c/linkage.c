/* Refers to every function by its prototype; linked with -z now, one that is missing stops the program. */
#include <stdio.h>

#include <vfio-user/libvfio-user.h>

typedef void (*any_fn)(void);

#define FUNCTION(name) { #name, (any_fn)name }

static const struct {
    const char *name;
    any_fn fn;
} functions[] = {
    FUNCTION(dma_sg_size),
    FUNCTION(vfu_addr_to_sgl),
    FUNCTION(vfu_attach_ctx),
    FUNCTION(vfu_create_ctx),
    FUNCTION(vfu_create_ioeventfd),
    FUNCTION(vfu_destroy_ctx),
    FUNCTION(vfu_device_quiesced),
    FUNCTION(vfu_get_poll_fd),
    FUNCTION(vfu_get_private),
    FUNCTION(vfu_irq_trigger),
    FUNCTION(vfu_log),
    FUNCTION(vfu_pci_add_capability),
    FUNCTION(vfu_pci_find_capability),
    FUNCTION(vfu_pci_find_next_capability),
    FUNCTION(vfu_pci_get_config_space),
    FUNCTION(vfu_pci_init),
    FUNCTION(vfu_pci_set_class),
    FUNCTION(vfu_pci_set_id),
    FUNCTION(vfu_realize_ctx),
    FUNCTION(vfu_run_ctx),
    FUNCTION(vfu_setup_device_dma),
    FUNCTION(vfu_setup_device_migration_callbacks),
    FUNCTION(vfu_setup_device_nr_irqs),
    FUNCTION(vfu_setup_device_quiesce_cb),
    FUNCTION(vfu_setup_device_reset_cb),
    FUNCTION(vfu_setup_irq_state_callback),
    FUNCTION(vfu_setup_log),
    FUNCTION(vfu_setup_region),
    FUNCTION(vfu_sg_is_mappable),
    FUNCTION(vfu_sgl_get),
    FUNCTION(vfu_sgl_mark_dirty),
    FUNCTION(vfu_sgl_put),
    FUNCTION(vfu_sgl_read),
    FUNCTION(vfu_sgl_write),
};

int
main(void)
{
    size_t i;

    for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (functions[i].fn == NULL) {
            return 1;
        }
        puts(functions[i].name);
    }
    return dma_sg_size() == 40 ? 0 : 1;
}
