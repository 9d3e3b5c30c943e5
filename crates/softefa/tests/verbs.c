/* A program on plain verbs, as the provider uses them, against the strictness of the device. Each line it prints is a
 * check that failed; no line and exit code 0 is success. It talks to itself: two queue pairs of one device. */
#include <errno.h>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int failed;

#define CHECK(what)                                                   \
	do {                                                          \
		if (!(what)) {                                        \
			printf("line %d: %s\n", __LINE__, #what);     \
			failed = 1;                                   \
		}                                                     \
	} while (0)

enum { BYTES = 1 << 16, SENDS = 4, RECEIVES = 8 };

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_comp_channel *channel;
static struct ibv_ah *ah;
static char memory[2][BYTES];
static struct ibv_mr *mr[2];

struct end {
	struct ibv_cq_ex *cq;
	struct ibv_qp *qp;
	struct ibv_qp_ex *ex;
};

static const uint32_t qkey = 0x12345678;

/* The completion queue of the ends that are opened next, if not one of their own. */
static struct ibv_cq *shared_cq;

static void open_end(struct end *end, unsigned char rnr_retry)
{
	struct ibv_cq_init_attr_ex cq = { .cqe = 64, .wc_flags = IBV_WC_STANDARD_FLAGS, .channel = channel };
	struct efadv_cq_init_attr efa_cq = { .wc_flags = EFADV_WC_EX_WITH_SGID };
	end->cq = shared_cq ? (struct ibv_cq_ex *)shared_cq : efadv_create_cq(context, &cq, &efa_cq, sizeof(efa_cq));
	CHECK(end->cq);
	struct ibv_qp_init_attr_ex init = {
		.send_cq = ibv_cq_ex_to_cq(end->cq),
		.recv_cq = ibv_cq_ex_to_cq(end->cq),
		.cap = { .max_send_wr = SENDS, .max_recv_wr = RECEIVES, .max_send_sge = 2, .max_recv_sge = 1, .max_inline_data = 32 },
		.qp_type = IBV_QPT_DRIVER,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
				  IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
	};
	struct efadv_qp_init_attr srd = { .driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD };
	end->qp = efadv_create_qp_ex(context, &init, &srd, sizeof(srd));
	CHECK(end->qp);
	end->ex = ibv_qp_to_qp_ex(end->qp);
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = qkey, .rnr_retry = rnr_retry };
	CHECK(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY) == 0);
	attr.qp_state = IBV_QPS_RTR;
	CHECK(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE) == 0);
	attr.qp_state = IBV_QPS_RTS;
	CHECK(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_RNR_RETRY) == 0);
}

static void close_end(struct end *end)
{
	CHECK(ibv_destroy_cq(ibv_cq_ex_to_cq(end->cq)) == EBUSY);
	CHECK(ibv_destroy_qp(end->qp) == 0);
	/* What was completed and not polled is gone with the queue pair. */
	struct ibv_poll_cq_attr attr = { 0 };
	CHECK(ibv_start_poll(end->cq, &attr) == ENOENT);
	CHECK(ibv_destroy_cq(ibv_cq_ex_to_cq(end->cq)) == 0);
}

static int receive(struct end *end, uint64_t id, uint32_t bytes, uint32_t lkey)
{
	struct ibv_sge sge = { .addr = (uintptr_t)memory[1], .length = bytes, .lkey = lkey };
	struct ibv_recv_wr wr = { .wr_id = id, .sg_list = &sge, .num_sge = 1 }, *bad = NULL;
	int error = ibv_post_recv(end->qp, &wr, &bad);
	CHECK(!error || bad == &wr);
	return error;
}

enum verb { SEND, READ, WRITE, WRITE_IMM };

static int work(struct end *from, struct end *to, enum verb verb, uint64_t id, uint32_t bytes, uint32_t lkey, uint32_t rkey)
{
	struct ibv_qp_ex *ex = from->ex;
	ibv_wr_start(ex);
	ex->wr_id = id;
	uint64_t remote = (uintptr_t)memory[1];
	switch (verb) {
	case SEND: ibv_wr_send_imm(ex, 77); break;
	case READ: ibv_wr_rdma_read(ex, rkey, remote); break;
	case WRITE: ibv_wr_rdma_write(ex, rkey, remote); break;
	case WRITE_IMM: ibv_wr_rdma_write_imm(ex, rkey, remote, 78); break;
	}
	ibv_wr_set_sge(ex, lkey, (uintptr_t)memory[0], bytes);
	ibv_wr_set_ud_addr(ex, ah, to->qp->qp_num, qkey);
	return ibv_wr_complete(ex);
}

struct seen {
	uint64_t id;
	int opcode, status;
	uint32_t vendor_err, bytes, imm, src_qp, slid;
};

/* The next completion; gives up after many polls. */
static struct seen next(struct end *end)
{
	struct ibv_poll_cq_attr attr = { 0 };
	struct seen seen = { .id = UINT64_MAX };
	for (long tries = 0; tries < 20000000; tries++) {
		if (ibv_start_poll(end->cq, &attr))
			continue;
		seen.id = end->cq->wr_id;
		seen.status = end->cq->status;
		seen.opcode = ibv_wc_read_opcode(end->cq);
		seen.vendor_err = ibv_wc_read_vendor_err(end->cq);
		seen.bytes = ibv_wc_read_byte_len(end->cq);
		seen.imm = ibv_wc_read_wc_flags(end->cq) & IBV_WC_WITH_IMM ? ibv_wc_read_imm_data(end->cq) : 0;
		seen.src_qp = ibv_wc_read_src_qp(end->cq);
		seen.slid = ibv_wc_read_slid(end->cq);
		ibv_end_poll(end->cq);
		break;
	}
	return seen;
}

static void a_send_arrives(struct end *a, struct end *b)
{
	struct efadv_ah_attr attr;
	CHECK(efadv_query_ah(ah, &attr, sizeof(attr)) == 0);
	memset(memory[0], 'x', 1000);
	memset(memory[1], 0, 1000);
	CHECK(receive(b, 1, 4096, mr[1]->lkey) == 0);
	CHECK(work(a, b, SEND, 2, 1000, mr[0]->lkey, 0) == 0);
	struct seen got = next(b), sent = next(a);
	CHECK(got.id == 1 && got.opcode == IBV_WC_RECV && got.status == 0 && got.bytes == 1000 && got.imm == 77);
	CHECK(got.src_qp == a->qp->qp_num && got.slid == attr.ahn);
	CHECK(sent.id == 2 && sent.opcode == IBV_WC_SEND && sent.status == 0);
	CHECK(memcmp(memory[0], memory[1], 1000) == 0);
}

static void reads_and_writes_move_bytes(struct end *a, struct end *b)
{
	memset(memory[0], 'w', BYTES);
	CHECK(work(a, b, WRITE, 3, BYTES, mr[0]->lkey, mr[1]->rkey) == 0);
	struct seen seen = next(a);
	CHECK(seen.id == 3 && seen.opcode == IBV_WC_RDMA_WRITE && seen.status == 0);
	CHECK(memory[1][BYTES - 1] == 'w');
	memset(memory[1], 'r', BYTES);
	CHECK(work(a, b, READ, 4, BYTES, mr[0]->lkey, mr[1]->rkey) == 0);
	seen = next(a);
	/* The driver has no number of its own for reads. */
	CHECK(seen.id == 4 && seen.opcode == IBV_WC_SEND && seen.status == 0);
	CHECK(memory[0][BYTES - 1] == 'r');
	CHECK(receive(b, 5, 16, mr[1]->lkey) == 0);
	CHECK(work(a, b, WRITE_IMM, 6, BYTES, mr[0]->lkey, mr[1]->rkey) == 0);
	struct seen told = next(b);
	CHECK(told.id == 5 && told.opcode == IBV_WC_RECV_RDMA_WITH_IMM && told.imm == 78 && told.bytes == BYTES);
	CHECK(next(a).id == 6);
}

static void mistakes_are_told_with_the_numbers_of_the_device(struct end *a, struct end *b)
{
	CHECK(work(a, b, SEND, 7, 10, mr[0]->lkey + (1 << 20), 0) == 0);
	struct seen seen = next(a);
	CHECK(seen.id == 7 && seen.status != 0 && seen.vendor_err == 5);
	CHECK(work(a, b, SEND, 8, 60000, mr[0]->lkey, 0) == 0);
	CHECK(next(a).vendor_err == 6);
	CHECK(work(a, b, READ, 9, 10, mr[0]->lkey, mr[1]->rkey + (1 << 20)) == 0);
	CHECK(next(a).vendor_err == 7);
	struct end nobody = *b;
	struct ibv_qp ghost = *b->qp;
	ghost.qp_num = 20000;
	nobody.qp = &ghost;
	CHECK(work(a, &nobody, SEND, 10, 10, mr[0]->lkey, 0) == 0);
	CHECK(next(a).vendor_err == 9);
	/* Nobody has posted a receive, and this queue pair asks three times. */
	CHECK(work(a, b, SEND, 11, 10, mr[0]->lkey, 0) == 0);
	CHECK(next(a).vendor_err == 10);
	CHECK(receive(b, 12, 4, mr[1]->lkey) == 0);
	CHECK(work(a, b, SEND, 13, 10, mr[0]->lkey, 0) == 0);
	CHECK(next(a).vendor_err == 11);
}

static void queues_are_as_long_as_they_were_made(struct end *a, struct end *b)
{
	int posted = 0;
	while (posted < 100 && work(a, b, READ, posted, 8, mr[0]->lkey, mr[1]->rkey) == 0)
		posted++;
	CHECK(posted == SENDS);
	for (int i = 0; i < posted; i++)
		CHECK(next(a).status == 0);
	CHECK(work(a, b, READ, 9, 8, mr[0]->lkey, mr[1]->rkey) == 0);
	CHECK(next(a).id == 9);
	posted = 0;
	while (posted < 100 && receive(a, posted, 64, mr[1]->lkey) == 0)
		posted++;
	CHECK(posted == RECEIVES);
	/* Inline data is for sends, and short. */
	char text[33] = { 0 };
	ibv_wr_start(a->ex);
	ibv_wr_send(a->ex);
	ibv_wr_set_inline_data(a->ex, text, sizeof(text));
	ibv_wr_set_ud_addr(a->ex, ah, b->qp->qp_num, qkey);
	CHECK(ibv_wr_complete(a->ex) == EINVAL);
}

static void a_sleeper_is_woken(struct end *a, struct end *b)
{
	struct pollfd fd = { .fd = channel->fd, .events = POLLIN };
	CHECK(poll(&fd, 1, 0) == 0);
	CHECK(ibv_req_notify_cq(ibv_cq_ex_to_cq(b->cq), 0) == 0);
	CHECK(receive(b, 20, 64, mr[1]->lkey) == 0);
	CHECK(work(a, b, SEND, 21, 8, mr[0]->lkey, 0) == 0);
	CHECK(poll(&fd, 1, 5000) == 1);
	struct ibv_cq *cq;
	void *cq_context;
	CHECK(ibv_get_cq_event(channel, &cq, &cq_context) == 0);
	CHECK(cq == ibv_cq_ex_to_cq(b->cq));
	ibv_ack_cq_events(cq, 1);
	CHECK(next(b).id == 20);
	CHECK(next(a).id == 21);
}

static void flushed_work_says_so(struct end *a)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };
	CHECK(ibv_modify_qp(a->qp, &attr, IBV_QP_STATE) == 0);
	/* The receives posted above. */
	for (int i = 0; i < RECEIVES - 1; i++) {
		struct seen seen = next(a);
		CHECK(seen.id == (uint64_t)i && seen.status == IBV_WC_WR_FLUSH_ERR && seen.vendor_err == 1);
	}
	CHECK(work(a, a, SEND, 1, 8, mr[0]->lkey, 0) == EINVAL);
}

/* More work than the completion queue has entries for: allowed, and fatal. */
static void run_over(void)
{
	struct end ends[18], target;
	struct ibv_cq *shared = NULL;
	open_end(&target, 7);
	for (int i = 0; i < 18; i++) {
		struct ibv_cq_init_attr_ex cq = { .cqe = 64, .wc_flags = IBV_WC_STANDARD_FLAGS };
		struct efadv_cq_init_attr efa_cq = { 0 };
		if (!shared)
			shared = ibv_cq_ex_to_cq(efadv_create_cq(context, &cq, &efa_cq, sizeof(efa_cq)));
		shared_cq = shared;
		open_end(&ends[i], 7);
		for (int n = 0; n < SENDS; n++)
			CHECK(work(&ends[i], &target, READ, n, 8, mr[0]->lkey, mr[1]->rkey) == 0);
	}
	/* The helper thread moves packets; 72 completions come into a queue of 64. */
	poll(NULL, 0, 5000);
}

static void memory_is_looked_at(void)
{
	char *gone = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(gone, 8192);
	errno = 0;
	CHECK(ibv_reg_mr(pd, gone, 8192, IBV_ACCESS_LOCAL_WRITE) == NULL && errno == EFAULT);
	CHECK(ibv_reg_mr(pd, memory[0], 100, IBV_ACCESS_REMOTE_WRITE) == NULL && errno == EINVAL);
	CHECK(ibv_reg_mr(pd, memory[0], 100, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC) == NULL && errno == EOPNOTSUPP);
	struct ibv_mr *large = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	/* The test has set a limit for the memory of all registrations. */
	CHECK(large == NULL && errno == ENOMEM);
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	context = ibv_open_device(list[0]);
	ibv_free_device_list(list);
	CHECK(context);
	pd = ibv_alloc_pd(context);
	channel = ibv_create_comp_channel(context);
	CHECK(pd && channel);
	union ibv_gid gid;
	CHECK(ibv_query_gid(context, 1, 0, &gid) == 0);
	struct end a, b;
	int all = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
	for (int i = 0; i < 2; i++) {
		mr[i] = ibv_reg_mr(pd, memory[i], BYTES, all);
		CHECK(mr[i]);
	}
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1, .grh = { .dgid = gid } };
	ah = ibv_create_ah(pd, &attr);
	CHECK(ah);
	if (argc > 1 && strcmp(argv[1], "overrun") == 0) {
		run_over();
		return 1;
	}
	open_end(&a, 3);
	open_end(&b, 7);
	if (failed)
		return 1;
	a_send_arrives(&a, &b);
	reads_and_writes_move_bytes(&a, &b);
	mistakes_are_told_with_the_numbers_of_the_device(&a, &b);
	/* The receive that was too short is still posted, or used up; either way it is not in the way. */
	close_end(&b);
	open_end(&b, 7);
	a_sleeper_is_woken(&a, &b);
	queues_are_as_long_as_they_were_made(&a, &b);
	flushed_work_says_so(&a);
	memory_is_looked_at();
	close_end(&b);
	CHECK(ibv_destroy_qp(a.qp) == 0);
	CHECK(ibv_destroy_cq(ibv_cq_ex_to_cq(a.cq)) == 0);
	CHECK(ibv_destroy_ah(ah) == 0);
	for (int i = 0; i < 2; i++)
		CHECK(ibv_dereg_mr(mr[i]) == 0);
	CHECK(ibv_destroy_comp_channel(channel) == 0);
	CHECK(ibv_dealloc_pd(pd) == 0);
	CHECK(ibv_close_device(context) == 0);
	return failed;
}
